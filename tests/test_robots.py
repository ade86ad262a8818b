"""robots.txt after RFC 9309, with its own examples."""

from __future__ import annotations

import time

import pytest

from understudy.data.web.robots import parse

GROUPS = b"""
# comment
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""


@pytest.mark.parametrize(
    ("agent", "path", "allowed"),
    [
        ("other", "/publications/a", True),
        ("other", "/example/a", False),
        ("other", "/a.gif", False),
        ("other", "/a.gif?x", True),
        ("foobot", "/example/page.html", True),
        ("foobot", "/a", False),
        ("foobot", "/robots.txt", True),
        ("barbot", "/example/page.html", False),
        ("bazbot", "/example/page.html", False),
        ("bazbot", "/a.gif", True),
        ("quxbot", "/example/page.html", True),
    ],
)
def test_the_groups_of_the_rfc(agent: str, path: str, allowed: bool) -> None:
    assert parse(GROUPS, agent).allows(path) is allowed


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("Disallow: /\nAllow: /p", "/page", True),
        ("Allow: /p\nDisallow: /", "/page", True),
        ("Allow: /folder\nDisallow: /folder", "/folder/page", True),
        ("Allow: /page\nDisallow: /*.html", "/page.html", False),
        ("Disallow: /*.php$", "/a.php", False),
        ("Disallow: /*.php$", "/a.php5", True),
        ("Disallow: /fish*", "/fish.html", False),
        ("Disallow: /a*b*c", "/a-b-d", True),
        ("Disallow: /a*b*c", "/axbxc/d", False),
        ("Disallow: /%D0%BE", "/о", False),
        ("Disallow: /о", "/%d0%be/1", False),
        ("Disallow: /a%2Fb", "/a/b", True),
        ("Disallow: /?page=", "/?page=2", False),
        ("Disallow:", "/anything", True),
    ],
)
def test_the_longest_rule_wins(rules: str, path: str, allowed: bool) -> None:
    assert parse(f"User-agent: understudy\n{rules}\n".encode(), "understudy").allows(path) is allowed


def test_a_hostile_file_costs_no_time() -> None:
    stars = b"User-agent: *\nCrawl-delay: 2.5\nDisallow: /" + b"*a" * 5000 + b"b\n" + b"Disallow: /x\n" * 200_000
    started = time.monotonic()
    rules = parse(stars, "understudy")
    assert not rules.allows("/x") and rules.allows("/" + "a" * 20_000) and rules.delay_s == 2.5
    assert time.monotonic() - started < 2

"""Which addresses a web source connects to: public ones only, whatever a URL, a name server or a redirect says."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator

import httpcore2
import pytest
from website import Site, reply, site

from understudy.config import FetchConfig
from understudy.data.clean import Fault
from understudy.data.web.address import Blocked, Clock, Connector, is_public, parse
from understudy.data.web.fetch import Fetcher

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001::1",
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "100::1",
    "2606:4700::5efe:7f00:1",
    "2606:4700::200:5efe:a00:1",
]
PUBLIC = [
    "1.1.1.1",
    "93.184.216.34",
    "2606:4700:4700::1111",
    "64:ff9b::101:101",
    "2002:101:101::1",
    "2606:4700::5efe:101:101",
]

# `%p` is the canary's port. Names that no literal is are answered with 127.0.0.1, as a hostile name server would.
HOSTILE = [
    "http://127.0.0.1:%p/", "http://127.1:%p/", "http://2130706433:%p/", "http://0x7f000001:%p/", "http://0x7f.1:%p/",
    "http://0177.0.0.1:%p/", "http://017700000001:%p/", "http://127.0.0.1.:%p/", "http://0:%p/", "http://0.0.0.0:%p/",
    "http://localhost:%p/", "http://LOCALHOST:%p/", "http://localhost.:%p/", "http://localhost.localdomain:%p/",
    "http://[::1]:%p/", "http://[::]:%p/", "http://[0:0:0:0:0:0:0:1]:%p/", "http://[::ffff:127.0.0.1]:%p/",
    "http://[::ffff:7f00:1]:%p/", "http://[::127.0.0.1]:%p/", "http://[64:ff9b::7f00:1]:%p/",
    "http://[2002:7f00:1::]:%p/", "http://[::ffff:0:7f00:1]:%p/", "http://[fe80::1%25lo]:%p/",
    "http://evil.example:%p/", "http://127.0.0.1.nip.example:%p/", "http://metadata.google.internal:%p/",
    "http://169.254.169.254:%p/latest/meta-data/", "http://[fd00:ec2::254]:%p/", "http://10.0.0.1:%p/",
    "http://user@127.0.0.1:%p/", "http://user:pass@127.0.0.1:%p/", "http://public.example@127.0.0.1:%p/",
    "http://public.example:80@127.0.0.1:%p/", "http://127.0.0.1:%p@public.example/", "http://@127.0.0.1:%p/",
    "http://127.0.0.1:%p#@public.example/", "http://127.0.0.1:%p?@public.example/", "http://127.0.0.1:%p\\@public.example/",
    "http://public.example\\@127.0.0.1:%p/", "http:\\\\127.0.0.1:%p/", "http://127.0.0.1:%p/\t", "ht\ntp://127.0.0.1:%p/",
    "http://127.0.0.1\t:%p/", " http://127.0.0.1:%p/", "http://127.0.0.1:%p/a b", "http://127.0.0.1:%p/\x00",
    "http://１２７.0.0.1:%p/", "http://127。0。0。1:%p/", "http://①②⑦.⓪.⓪.①:%p/", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:%p/", "http://лocalhost:%p/",
    "http://%31%32%37.0.0.1:%p/", "http://127.0.0.1%2f@public.example:%p/", "http://127.0.0.1%00.public.example:%p/",
    "http:///127.0.0.1:%p/", "http:127.0.0.1:%p/", "//127.0.0.1:%p/", "127.0.0.1:%p/", "", "http://", "http://:%p/",
    "http://127.0.0.1:0/", "http://127.0.0.1:99999/", "http://127.0.0.1:-1/", "http://a..b:%p/", "http://-a:%p/",
    "file:///etc/passwd", "ftp://127.0.0.1:%p/", "gopher://127.0.0.1:%p/_GET", "data:text/html,hi",
    "javascript:alert(1)", "jar:http://127.0.0.1:%p/!/", "ws://127.0.0.1:%p/", "unix:/var/run/docker.sock",
]  # fmt: skip


@pytest.fixture(scope="module")
def canary() -> Iterator[tuple[Site, Site]]:
    """A server inside, on IPv4 and on IPv6, that nobody may reach."""
    with site() as four, site(host="::1") as six:
        yield four, six


def hostile_names(host: str, port: int) -> list[str]:
    """The system's answer for anything that is a number or localhost; 127.0.0.1 for every other name."""
    try:
        return [str(info[4][0]) for info in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)]
    except OSError:
        return ["::1", "127.0.0.1"] if host.startswith("local") else ["127.0.0.1"]


def test_public_and_private_addresses() -> None:
    assert [a for a in PRIVATE if is_public(a)] == []
    assert [a for a in PUBLIC if not is_public(a)] == []


def test_no_hostile_url_reaches_the_canary(canary: tuple[Site, Site]) -> None:
    fetcher = Fetcher(FetchConfig(requests_per_s=1000, attempts=1, deadline_s=5), resolver=hostile_names)
    for inside in canary:
        for template in HOSTILE:
            with pytest.raises(Fault) as e:
                fetcher.page(template.replace("%p", str(inside.port)))
            assert e.value.reason in ("URL_BLOCKED", "URL_SCHEME", "URL_MALFORMED"), template
            assert (inside.connections, inside.bytes_in) == (0, 0), template


def test_a_message_does_not_show_what_a_name_resolved_to() -> None:
    fetcher = Fetcher(FetchConfig(attempts=1), resolver=lambda host, port: ["10.11.12.13"])
    with pytest.raises(Fault) as e:
        fetcher.page("http://inside.example/")
    assert e.value.reason == "URL_BLOCKED" and "inside.example" in e.value.detail and "10.11" not in str(e.value)


class Recorder(httpcore2.SyncBackend):
    """The outside world: notes which address a connection would go to, and lets none through."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:  # fmt: skip
        self.reached.append(host)
        raise httpcore2.ConnectError("recorded")


def test_a_name_that_rebinds_is_decided_by_the_answer_that_is_connected_to() -> None:
    answers = [["1.1.1.1"], ["127.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["8.8.8.8"], []]
    asked: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    outside = Recorder()
    connector = Connector(Clock(time.monotonic() + 60, 1 << 20), resolver=resolver, system=outside)
    outcomes: list[type[BaseException]] = []
    for _ in answers:
        with pytest.raises((Blocked, httpcore2.ConnectError)) as e:
            connector.connect_tcp("rebind.example", 80)
        outcomes.append(e.type)
    assert outcomes == [httpcore2.ConnectError, Blocked, Blocked, httpcore2.ConnectError, Blocked]
    # One question a connection, and the socket went to its very answer.
    assert len(asked) == len(answers) and outside.reached == ["1.1.1.1", "8.8.8.8"]


def test_a_listed_host_opens_no_other_port_and_no_other_name(canary: tuple[Site, Site]) -> None:
    with site({"/": reply("<html>in</html>")}) as listed:
        fetcher = Fetcher(
            FetchConfig(requests_per_s=1000, attempts=1, allow_hosts=[listed.host]), resolver=hostile_names
        )
        assert fetcher.page(listed.url("/")).body == b"<html>in</html>"
        for host in (f"127.0.0.1:{canary[0].port}", f"localhost:{listed.port}", f"evil.example:{listed.port}"):
            with pytest.raises(Fault) as e:
                fetcher.page(f"http://{host}/")
            assert e.value.reason == "URL_BLOCKED"
    assert canary[0].bytes_in == 0


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("HTTP://Stars.Example:80/a?b=1#c", "http://stars.example/a?b=1"),
        ("https://звёзды.example/овен", "https://xn--b1aehb5h7a.example/%D0%BE%D0%B2%D0%B5%D0%BD"),
        ("https://stars.example:8443", "https://stars.example:8443/"),
    ],
)
def test_normal_form_of_a_url(given: str, normal: str) -> None:
    """An internationalised name is shown as it is asked for: in punycode, where look-alikes differ."""
    assert parse(given).url == normal


class Detour(httpcore2.SyncBackend):
    """The outside world: what stands at 1.1.1.1 is played by a site on loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:  # fmt: skip
        if host != "1.1.1.1":
            return super().connect_tcp(host, port, timeout)
        stream = super().connect_tcp("127.0.0.1", self.port, timeout)
        known = stream.get_extra_info
        stream.get_extra_info = lambda info: ("1.1.1.1", 80) if info == "server_addr" else known(info)  # type: ignore[method-assign]
        return stream


def test_a_public_site_may_not_redirect_to_a_listed_host() -> None:
    with site({"/": reply("<html>inside</html>")}) as inside, site() as public:
        name = f"inside.example:{inside.port}"
        public.pages |= {"/": reply("<html>out</html>"), "/in": reply(status=302, location=f"http://{name}/")}
        fetcher = Fetcher(
            FetchConfig(requests_per_s=1000, attempts=1, allow_hosts=[name]),
            resolver=lambda host, port: ["1.1.1.1" if host == "public.example" else "127.0.0.1"],
        )
        fetcher.connector.system = Detour(public.port)
        assert fetcher.page("http://public.example/").body == b"<html>out</html>"
        with pytest.raises(Fault) as e:
            fetcher.page("http://public.example/in")
        assert e.value.reason == "URL_BLOCKED" and inside.connections == 0
        assert fetcher.page(f"http://{name}/").body == b"<html>inside</html>"

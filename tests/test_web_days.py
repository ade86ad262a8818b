"""Days of a web source: each is collected once, by a step of its own, and a run of the next day adds the new one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from test_web import FIELDS, PROMPT, SIGNS, article, first_site, second_site, table
from website import Site, reply, site

from understudy.core.plan import Plan
from understudy.core.records import read_jsonl
from understudy.core.runner import Outcome, Runner
from understudy.project import Project

WEEK = [f"2026-11-{n}" for n in range(14, 21)]


class Quiet:
    def started(self, *_: Any) -> None: ...
    def progress(self, *_: Any) -> None: ...
    def finished(self, *_: Any) -> None: ...


@pytest.fixture
def hosts() -> Iterator[tuple[Site, Site]]:
    """Two sites that publish a day when `publish` is called."""
    with ExitStack() as stack:
        yield stack.enter_context(site()), stack.enter_context(site())


def publish(hosts: tuple[Site, Site], day: str) -> None:
    one, two = hosts
    one.pages |= {f"/{sign}/{day}": reply(article(sign, day)) for sign in SIGNS}
    two.pages[f"/day/{day[8:]}-{day[5:7]}-{day[:4]}"] = reply(table(day))


def make(folder: Path, hosts: tuple[Site, Site], **source: Any) -> Path:
    """A project of one web source over both sites; JSON is YAML."""
    one, two = hosts
    given = {
        "kind": "web",
        "since": WEEK[0],
        "sites": [first_site(one), second_site(two)],
        "fields": FIELDS,
        "prompt_template": PROMPT,
        "fetch": {"requests_per_s": 1000, "allow_hosts": [one.host, two.host]},
        **source,
    }
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "version": 1,
        "name": "stars",
        "sources": [given],
        "gate": {"metric": "loss", "bar": None, "must_beat": []},
    }
    (folder / "understudy.yaml").write_text(json.dumps(config, ensure_ascii=False), "utf-8")
    return folder


def gather(folder: Path, as_of: str) -> tuple[list[Outcome], list[dict[str, Any]]]:
    """Collect to dedupe of a day's run; the steps' outcomes and the rows."""
    project = Project(folder)
    run, plan, _ = project.open_run(new=False, control=None, as_of=as_of)
    outcomes = Runner(folder, project.store, run.journal, Quiet()).run(Plan.of("part", [plan.step("dedupe")]))
    return outcomes, list(read_jsonl(outcomes[-1].artifact.path / "rows.jsonl"))


def test_each_day_of_a_week_asks_for_its_own_pages_only(tmp_path: Path, hosts: tuple[Site, Site]) -> None:
    folder = make(tmp_path / "p", hosts)
    one, two = hosts
    for number, day in enumerate(WEEK, 1):
        publish(hosts, day)
        one.log.clear(), two.log.clear()
        outcomes, rows = gather(folder, day)
        assert sorted(one.paths()) == sorted(f"/{sign}/{day}" for sign in SIGNS)
        assert two.paths() == [f"/day/{day[8:]}-{day[5:7]}-{day[:4]}"]
        ran = [o.step.name for o in outcomes if o.state == "ran"]
        assert ran == [f"collect-web-{day}", f"clean-web-{day}", "merge", "dedupe"]
        assert Counter(o.state for o in outcomes)["cached"] == 2 * (number - 1)
        assert Counter(r["meta"]["collected_at"] for r in rows) == dict.fromkeys(WEEK[:number], 6)
    one.log.clear(), two.log.clear()
    outcomes, again = gather(folder, WEEK[-1])
    assert {o.state for o in outcomes} == {"cached"} and again == rows
    assert not one.log and not two.log

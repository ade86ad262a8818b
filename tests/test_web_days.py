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
from thread import make_tiny, understudy
from website import Site, reply, site

from understudy.core.plan import Plan
from understudy.core.records import Document, read_jsonl, write_jsonl
from understudy.core.runner import Outcome, Runner
from understudy.data.merge import merge
from understudy.errors import ConfigError, DataError, IntegrityError, RemoteError
from understudy.preflight import outlook, refuse
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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("span", "days"),
    [
        ({"since": "2026-11-18"}, ["2026-11-18", "2026-11-19", "2026-11-20"]),
        ({"since": None, "days": 2}, ["2026-11-19", "2026-11-20"]),
        ({"since": None}, ["2026-11-20"]),
        ({"since": "2026-11-18", "until": "2026-11-19"}, ["2026-11-18", "2026-11-19"]),
    ],
)
def test_a_source_says_its_span(
    span: dict[str, Any], days: list[str], tmp_path: Path, hosts: tuple[Site, Site]
) -> None:
    plan = Project(make(tmp_path / "p", hosts, **span)).preview("2026-11-20")
    collected = [step.name for step in plan.steps if step.stage == "collect_web"]
    assert collected == [f"collect-web-{day}" for day in days]


def test_a_longer_span_and_other_manners_leave_the_days_as_they_are(tmp_path: Path, hosts: tuple[Site, Site]) -> None:
    def fingerprints(**source: Any) -> dict[str, str]:
        plan = Project(make(tmp_path / "p", hosts, **source)).preview("2026-11-20")
        return {step.name: step.fingerprint for step in plan.steps if step.stage == "collect_web"}

    before = fingerprints(since="2026-11-19")
    after = fingerprints(since="2026-11-18", until="2026-11-21", fetch={"requests_per_s": 3, "on_error": "skip"})
    assert before.items() < after.items()
    assert not before.items() & fingerprints(since="2026-11-19", licence="MIT").items()


def test_a_day_that_fails_stops_the_run_and_the_days_before_stay(tmp_path: Path, hosts: tuple[Site, Site]) -> None:
    folder = make(tmp_path / "p", hosts, since="2026-11-19")
    publish(hosts, "2026-11-19")
    with pytest.raises(RemoteError) as e:
        gather(folder, "2026-11-20")
    assert (e.value.code, e.value.exit_code) == ("HTTP_404", 4)
    publish(hosts, "2026-11-20")
    for host in hosts:
        host.log.clear()
    outcomes, rows = gather(folder, "2026-11-20")
    assert [o.step.name for o in outcomes if o.state == "cached"] == ["collect-web-2026-11-19", "clean-web-2026-11-19"]
    assert len(rows) == 12 and not any("2026-11-19" in path for host in hosts for path in host.paths())


def test_pages_without_a_day_bring_only_what_is_new(tmp_path: Path, hosts: tuple[Site, Site]) -> None:
    """An unchanged page is answered 304 and gives no new row; a changed one replaces what had its id."""
    host = hosts[0]
    texts = {"a": "Первый текст.", "b": "Второй текст."}

    def news(connection: Any, asked: Any) -> None:
        items = "".join(f"<li id={key}><b>{key}</b><p>{text}</p></li>" for key, text in sorted(texts.items()))
        etag = f'"{len(str(texts))}"'
        same = asked.headers.get("if-none-match") == etag
        connection.sendall(reply(status=304) if same else reply(f"<html><ul>{items}</ul></html>", etag=etag))

    host.pages["/news"] = news
    rule = {"name": "news", "urls": [host.url("/news")], "item": "li", "columns": {"id": "b", "text": "p"}}
    fields = {"id": "id", "text": "text"}
    folder = make(tmp_path / "p", hosts, sites=[rule], fields=fields, prompt_template=None)
    _, rows = gather(folder, "2026-11-14")
    assert [row["text"] for row in rows] == list(texts.values())
    outcomes, again = gather(folder, "2026-11-15")
    assert again == rows and outcomes[-2].artifact.ledger is not None
    assert outcomes[-2].artifact.ledger.rejected == {"ID_DUPLICATE": 2}
    collected = next(o.artifact for o in outcomes if o.step.name == "collect-web-2026-11-15")
    assert collected.measured["web"]["not_modified"] == 1
    texts |= {"b": "Второй текст, исправленный.", "c": "Третий текст."}
    outcomes, rows = gather(folder, "2026-11-16")
    assert {row["id"]: row["text"] for row in rows} == texts and outcomes[-2].artifact.ledger is not None
    assert outcomes[-2].artifact.ledger.rejected == {"ID_DUPLICATE": 2, "REPLACED": 2}


def test_ids_of_different_sources_that_name_different_texts_are_refused(tmp_path: Path) -> None:
    for name, text, meta in [("a", "x", {}), ("b", "y", {"collected_at": "2026-11-20", "site": "s"})]:
        write_jsonl(tmp_path / name, [Document("1", text, meta)])
    with pytest.raises(DataError) as e:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert e.value.code == "ID_CONFLICT"


@pytest.mark.parametrize(("as_of", "status"), [("2026-02-30", 2), ("yesterday", 2), ("2026-11-01", 2)])
def test_a_day_that_cannot_be_is_refused(as_of: str, status: int, tmp_path: Path, hosts: tuple[Site, Site]) -> None:
    with pytest.raises(ConfigError) as e:
        Project(make(tmp_path / "p", hosts)).preview(as_of)
    assert (e.value.code, e.value.exit_code) == ("AS_OF", status)


def test_a_day_is_refused_where_nothing_goes_by_day(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as e:
        Project(make_tiny(tmp_path / "p")).preview("2026-11-20")
    assert e.value.code == "AS_OF"


def test_check_says_what_would_be_read_and_reads_nothing(tmp_path: Path, hosts: tuple[Site, Site]) -> None:
    (line,) = outlook(Project(make(tmp_path / "p", hosts, days=7, since=None)), "2026-11-20")
    assert line.startswith("web source web: 4 pages a day") and line.endswith("2026-11-14 to 2026-11-20, 7 days")
    assert all(host.host in line for host in hosts)
    with pytest.raises(IntegrityError) as e:
        refuse(Project(make(tmp_path / "q", hosts, fetch={})))
    assert e.value.code == "URL_BLOCKED" and not any(host.log for host in hosts)


def test_two_web_sources_need_names(tmp_path: Path, hosts: tuple[Site, Site]) -> None:
    """Their days would be the same steps."""
    file = make(tmp_path / "p", hosts) / "understudy.yaml"
    config = json.loads(file.read_text("utf-8"))
    config["sources"] = [{**config["sources"][0], "name": name} for name in ("a", "b")]
    file.write_text(json.dumps(config), "utf-8")
    names = [s.name for s in Project(file.parent).preview("2026-11-14").steps if s.stage == "collect_web"]
    assert names == ["collect-a-2026-11-14", "collect-b-2026-11-14"]
    config["sources"][1]["name"] = "a"
    file.write_text(json.dumps(config), "utf-8")
    with pytest.raises(ConfigError):
        Project(file.parent).preview("2026-11-14")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_life_cycle_goes_on_by_a_day(tmp_path: Path, hosts: tuple[Site, Site]) -> None:
    """To the gate, which decides nothing on so few rows; the second day reads, cleans and trains on one day more."""
    folder = make(tmp_path / "p", hosts, fields={"response": "text", "category": "sign"})
    config = json.loads((folder / "understudy.yaml").read_text("utf-8"))
    config |= {"train": {"max_steps": 1}, "answer": {"max_new_tokens": 20}, "split": {"validation": 0.2, "test": 0.2}}
    (folder / "understudy.yaml").write_text(json.dumps(config, ensure_ascii=False), "utf-8")
    for day in WEEK[:6]:
        publish(hosts, day)
    first = understudy("run", "--as-of", WEEK[4], "-C", str(folder))
    assert first.returncode == 7 and "GATE_FAILED" in first.stderr, first.stderr
    for host in hosts:
        host.log.clear()
    second = understudy("run", "--as-of", WEEK[5], "-C", str(folder))
    assert second.returncode == 7 and "GATE_FAILED" in second.stderr, second.stderr
    assert sorted(p for host in hosts for p in host.paths()) == sorted(
        ["/day/19-11-2026", *(f"/{sign}/{WEEK[5]}" for sign in SIGNS)]
    )
    shown = json.loads(understudy("show", "--json", "-C", str(folder)).stdout)
    days = {s["name"]: s["cached"] for s in shown["stages"] if s["name"].startswith("collect-web")}
    assert days == {f"collect-web-{day}": day != WEEK[5] for day in WEEK[:6]}

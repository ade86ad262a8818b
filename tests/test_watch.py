"""Harvest and watch: consented rows become a source that trains; alarms come once, on time, and survive restarts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from thread import make_tiny, one_line, understudy

from understudy import upkeep
from understudy.config import CollectConfig, FieldMap, SourceConfig, TrafficConfig
from understudy.core.records import Example, Ledger, read_records
from understudy.data.sources.collect import collect
from understudy.monitor.harvest import Harvested, harvest
from understudy.monitor.watch import Alert, Finding, State, judge, share, ticks
from understudy.project import Project
from understudy.traffic import Entry, Feedback, TrafficLog, reading
from understudy.upkeep import respond


def entry(number: int, **changes: Any) -> Entry:
    asked = [{"role": "user", "content": f"When does case {number} end?"}]
    given: dict[str, Any] = {
        "at": "2999-01-01T00:00:00.000+00:00", "side": "service", "model": "rented-1", "finish_reason": "stop",
        "consent": "yes", "messages": asked, "answer": f"In week {number}.", "total_ms": 5.0, "category": "ends",
    }  # fmt: skip
    return Entry(f"r-{number}", **{**given, **changes})


def write(folder: Path, entries: list[Entry], rated: dict[str, str] | None = None) -> None:
    with TrafficLog(folder, TrafficConfig(store="content")) as log:
        for one in entries:
            log.record(one)
        for request_id, rating in (rated or {}).items():
            log.rate(Feedback(request_id, rating, "a comment")).result(30)


def gather(folder: Path, **settings: Any) -> Harvested:
    with reading(folder / "traffic") as db:
        return harvest(db, folder / "data" / "harvest", "2026-11-21", **{"terms_url": "https://t.example", **settings})


def test_every_row_with_content_is_taken_once_or_named(tmp_path: Path) -> None:
    personal = [{"role": "user", "content": "Write to ann@example.org"}]
    number = [{"role": "user", "content": "Call +44 (0)20 7946 0018"}]
    entries = [
        entry(1),
        entry(2, side="understudy", model="understudy v1"),
        entry(3, side="understudy", model="understudy v1"),
        entry(4),
        entry(5, finish_reason="length"),
        entry(6, messages=personal),
        entry(7, messages=number),
        entry(8, messages=entry(1).messages, answer="in  WEEK 1."),
        entry(9, consent="unstated"),
        entry(10, error="upstream_lost", status=502),
    ]
    write(tmp_path / "traffic", entries, {"r-3": "up", "r-4": "down"})
    with TrafficLog(tmp_path / "traffic", TrafficConfig(store="content")) as log:
        log.record(entry(12))
        log.rate(Feedback("r-12", "down", "call me: +44 (0)20 7946 0018")).result(30)
    first = gather(tmp_path)
    assert first.ledger.balanced and first.ledger.rows_in == 9
    assert first.ledger.rejected == {"unrated": 1, "candidate": 1, "cut": 1, "personal": 3, "duplicate": 1}
    assert first.examples and first.candidates
    rows = [json.loads(line) for line in first.examples.read_text("utf-8").splitlines()]
    assert [r["request_id"] for r in rows] == ["r-1", "r-3"]
    assert (rows[0]["source"], rows[0]["served_by"], rows[0]["consent"]) == ("traffic", "rented-1", "yes")
    assert rows[0]["terms"] == "https://t.example" and "terms" not in rows[1]
    (candidate,) = [json.loads(line) for line in first.candidates.read_text("utf-8").splitlines()]
    assert (candidate["poor_answer"], candidate["comment"]) == ("In week 4.", "a comment")
    assert first.examples.stat().st_mode & 0o777 == 0o600
    assert (first.examples.parent / ".gitignore").read_text() == "*\n"

    again = gather(tmp_path)
    assert (again.examples, again.candidates, again.ledger.rows_out) == (None, None, 0), "each row once"
    write(tmp_path / "traffic", [entry(11)])
    later = gather(tmp_path, keep_personal=True)
    assert later.examples and later.examples.name == "2026-11-21-2.jsonl" and later.ledger.rows_out == 3


def test_two_lines_of_configuration_make_it_a_source(tmp_path: Path) -> None:
    write(tmp_path / "traffic", [entry(n) for n in range(3)])
    gather(tmp_path)
    fields = FieldMap(id="id", messages="messages", category="category")
    source = SourceConfig(path="data/harvest/*.jsonl", fields=fields, licence="in-house")
    ledger = collect(CollectConfig(sources=[source]), tmp_path, tmp_path / "out")
    records = read_records(tmp_path / "out" / "rows.jsonl")
    assert (ledger.rows_out, ledger.rejected) == (3, {})
    assert all(isinstance(r, Example) and r.answer and r.meta["category"] == "ends" for r in records)
    assert all(r.meta["source"].startswith("data/harvest/") and r.id.startswith("traffic-") for r in records)


def collected(folder: Path) -> tuple[Ledger, list[str]]:
    """What the harvest gives to a run, and the answers in it."""
    fields = FieldMap(id="id", messages="messages", category="category")
    source = SourceConfig(path="data/harvest/*.jsonl", fields=fields, max_bad_rows=0)
    ledger = collect(CollectConfig(sources=[source]), folder, folder / "out")
    records = read_records(folder / "out" / "rows.jsonl")
    return ledger, [str(r.answer) for r in records if isinstance(r, Example)]


def test_an_answer_that_is_rated_down_after_its_harvest_trains_no_more(tmp_path: Path) -> None:
    write(tmp_path / "traffic", [entry(n) for n in range(3)])
    first = gather(tmp_path)
    assert first.examples and first.withdrawn == 0
    before = first.examples.read_text("utf-8").splitlines()
    # The same answer to the same question once more: it is this one that a person rates down.
    twin = entry(20, messages=entry(1).messages, answer="in  WEEK 1.")
    write(
        tmp_path / "traffic",
        [twin, entry(21, messages=entry(1).messages, answer="In week 1.")],
        {"r-20": "down", "r-2": "down"},
    )
    second = gather(tmp_path)
    assert (second.withdrawn, second.examples, second.candidate_rows) == (2, None, 2)
    assert second.ledger.balanced and second.ledger.rejected == {"candidate": 1, "rated_down": 1}
    ledger, answers = collected(tmp_path)
    assert answers == ["In week 0."] and ledger.rejected == {"WITHDRAWN": 2}
    after = first.examples.read_text("utf-8").splitlines()
    assert after[0] == before[0] and "week" not in after[1] + after[2], "places stay, the words go"
    assert first.examples.stat().st_mode & 0o777 == 0o600
    assert second.candidates
    kept = [json.loads(line) for line in second.candidates.read_text("utf-8").splitlines()]
    assert sorted(c["request_id"] for c in kept) == ["r-2", "r-20"]
    write(tmp_path / "traffic", [], {"r-2": "up"})
    write(tmp_path / "traffic", [entry(22, messages=entry(2).messages, answer="In week 2.")])
    third = gather(tmp_path)
    assert (third.withdrawn, third.examples) == (0, None) and collected(tmp_path)[1] == ["In week 0."]


def test_a_withdrawn_answer_with_something_personal_is_no_candidate(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "Write to ann@example.org"}]
    write(tmp_path / "traffic", [entry(1), entry(2, messages=asked)])
    gather(tmp_path, keep_personal=True)
    write(tmp_path / "traffic", [], {"r-2": "down"})
    found = gather(tmp_path)
    assert (found.withdrawn, found.candidates) == (1, None) and collected(tmp_path)[1] == ["In week 1."]
    held = "".join(path.read_text("utf-8") for path in (tmp_path / "data" / "harvest").rglob("*.jsonl"))
    assert "ann@example.org" not in held
    write(tmp_path / "traffic", [], {"r-1": "down"})
    gather(tmp_path)
    ledger, answers = collected(tmp_path)
    assert (answers, ledger.rejected) == ([], {"WITHDRAWN": 2}), "a source may be withdrawn to its last row"


def test_an_alarm_is_told_once_and_its_end_too_also_after_a_restart(tmp_path: Path) -> None:
    def told(alarm: bool | None) -> list[str]:
        state = State.load(tmp_path / "watch.json")
        changes = [a.change for a in judge(state, [Finding("drift", alarm, "drift: …", {})])]
        state.save(tmp_path / "watch.json")
        return changes

    looks = [False, True, True, None, True, False, False, True]
    assert [told(alarm) for alarm in looks] == [[], ["raised"], [], [], [], ["cleared"], [], ["raised"]]
    (tmp_path / "watch.json").write_text("{torn")
    assert told(True) == ["raised"], "a damaged state is a fresh one"


def test_a_share_alarms_when_it_surely_is_above_and_clears_when_it_is_back() -> None:
    def rate(count: int, low: float) -> dict[str, Any]:
        return {"count": count, "n": 100, "value": count / 100, "low": low, "high": 1.0}

    assert share("errors", rate(20, 0.13), 0.05).alarm is True
    assert share("errors", rate(8, 0.04), 0.05).alarm is None
    assert share("errors", rate(4, 0.01), 0.05).alarm is False
    assert share("errors", None, 0.05).alarm is None


def test_ticks_keep_their_grid_and_leave_out_what_was_slept_through() -> None:
    class Clock:
        now = 100.0

        def sleep(self, seconds: float) -> None:
            slept.append(seconds)
            self.now += seconds

    clock, slept, at = Clock(), list[float](), list[float]()
    for number in ticks(50.0, lambda: clock.now, clock.sleep):
        at.append(clock.now - 100.0)
        clock.now += {0: 0.0, 1: 20.0, 2: 175.0}.get(number, 1.0)
        if len(at) == 5:
            break
    assert at == [0.0, 50.0, 100.0, 300.0, 350.0], "work takes its time, the grid stays; three ticks were missed"
    assert max(slept) <= 60.0


def test_what_a_user_may_get_wrong_is_one_line(tmp_path: Path) -> None:
    folder = str(make_tiny(tmp_path / "p"))
    one_line(understudy("traffic", "-C", folder), "NO_TRAFFIC", 2)
    one_line(understudy("harvest", "-C", folder), "NO_TRAFFIC", 2)
    one_line(understudy("watch", "--every", "soon", "-C", folder), "DURATION", 2)


@pytest.mark.slow
def test_the_watch_waits_for_its_log_stops_on_sigterm_and_is_alone(tmp_path: Path) -> None:
    folder = str(make_tiny(tmp_path / "p"))
    command = [sys.executable, "-m", "understudy", "watch", "--every", "1s", "-C", folder]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr
        assert running.stderr.readline().startswith("error[NO_TRAFFIC]")
        one_line(understudy("watch", "--once", "-C", folder), "BUSY", 75)
        assert running.stderr.readline().startswith("error[NO_TRAFFIC]"), "it goes on looking"
    finally:
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 143 and errors.splitlines()[-1] == "stopped"
    assert time.monotonic() - began < 30


def test_drift_leads_to_harvest_and_run_where_that_is_wanted_and_their_ends_are_kept(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "p")
    (folder / "data" / "rows.jsonl").unlink()
    drift, errors = Alert("drift", "raised", "drift: …", {}), Alert("errors", "raised", "errors: …", {})
    told: list[str] = []
    assert respond(Project(folder), drift, told.append) == {}, "an alert alone is the default"
    with open(folder / "understudy.yaml", "a", encoding="utf-8") as f:
        f.write("watch: {on_drift: retrain}\n")
    assert respond(Project(folder), errors, told.append) == {}
    assert respond(Project(folder), drift, told.append) == {"harvest": 2, "run": 2}, "no log, and no rows to run on"
    assert told == ["drift: understudy harvest", "drift: understudy run"]


def test_a_watch_that_is_ended_in_a_training_has_told_of_it_and_begins_no_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_tiny(tmp_path / "p")
    write(folder / "traffic", [entry(1)])
    found = Finding("drift", True, "drift: p = 0.0005", {})

    def ended(*given: object) -> dict[str, int]:
        raise SystemExit(143)

    monkeypatch.setattr(upkeep, "_drift", lambda *given: found)
    monkeypatch.setattr(upkeep, "respond", ended)
    with pytest.raises(SystemExit):
        upkeep.check(Project(folder), print)
    assert upkeep.check(Project(folder), print) == []
    (line,) = (folder / "runs" / "alerts.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["change"] == "raised"

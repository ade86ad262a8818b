"""Synthesis against a service that fails in every way it can: nothing is lost, doubled or asked again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_service import Opened
from test_synthesize import SEEDS, course, text

from understudy.config import ServiceConfig, SynthesizeConfig
from understudy.core.records import Document, read_examples, read_jsonl
from understudy.data.synthesis.cells import Cell
from understudy.data.synthesis.material import Material
from understudy.data.synthesis.quota import Quota
from understudy.data.synthesis.synthesize import synthesize
from understudy.data.synthesis.texts import prompt_key
from understudy.errors import RemoteError
from understudy.models.cache import kept
from understudy.models.service import ServiceModel
from understudy.models.simulated import Faults, SimulatedService

DOCUMENTS = [Document(f"d{i}", text(course(i)), {"group": f"g{i}"}) for i in range(20, 820)]
FAULTS = Faults(rate_429=0.3, rate_500=0.05, rate_cut=0.05, rate_malformed=0.05, rate_silence=0.02, silence_s=30.0)
CONCURRENCY = 16


def teacher(url: str, cache: Path, **settings: Any) -> ServiceModel:
    given = {"concurrency": CONCURRENCY, "timeout_s": 6.0, "max_attempts": 8, **settings}
    model = ServiceModel(ServiceConfig(**given), base_url=url, cache=cache, role="teacher")
    model.backoff_s = 0.01
    return model


def write(model: ServiceModel, out: Path, rows: int) -> Any:
    cfg = SynthesizeConfig(rows=rows, rows_per_call=1, seeds_per_call=3)
    wanted = Quota({Cell("who"): rows // 2, Cell("when"): rows - rows // 2})
    # Rows of one template differ in names alone: what is near is another test's matter.
    return synthesize(cfg, model, Material(seeds=SEEDS, documents=DOCUMENTS), quota=wanted, round=1, out=out)


def asked(bodies: list[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps(body["messages"]) for body in bodies)


@pytest.mark.slow
def test_a_thousand_rows_are_written_in_spite_of_every_fault_and_the_books_agree(
    tmp_path: Path, opened: Opened
) -> None:
    (tmp_path / "out").mkdir()
    with SimulatedService(faults=FAULTS) as service:
        model = opened(teacher(service.base_url, tmp_path / "cache"))
        ledger = write(model, tmp_path / "out", 1000)
        theirs = service.ledger
    rows = read_examples(tmp_path / "out" / "train.jsonl")
    assert len(rows) == 1000 == len({prompt_key(r) for r in rows}) == len({r.id for r in rows})
    assert min(theirs.faults[name] for name in ("429", "500", "cut", "malformed", "silence")) >= 10
    # One row a request: each request was a fault, or its answer a row that was kept or refused with a reason.
    refused = [r for r in read_jsonl(tmp_path / "out" / "rejects.jsonl") if r["reason"] not in FAILED]
    assert len(rows) + len(refused) + ledger.notes.get("empty_replies", 0) + sum(theirs.faults.values()) == (
        theirs.requests
    )
    assert theirs.balanced and theirs.repeated == 0 and theirs.requests == model.calls["requests"]
    assert ledger.rows_in == ledger.rows_out + sum(ledger.rejected.values())


FAILED = ("bad_json", "request_failed")
"""Rejects that stand for a request without an answer; its attempts are faults in the service's ledger."""


def test_a_second_run_asks_nothing(tmp_path: Path, opened: Opened) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with SimulatedService(faults=Faults(rate_429=0.3, rate_500=0.1)) as service:
        write(opened(teacher(service.base_url, tmp_path / "cache")), tmp_path / "one", 60)
        before = service.ledger.requests
        write(opened(teacher(service.base_url, tmp_path / "cache")), tmp_path / "two", 60)
        assert service.ledger.requests == before
    assert (tmp_path / "one/train.jsonl").read_bytes() == (tmp_path / "two/train.jsonl").read_bytes()


def test_an_outage_in_the_middle_stops_and_is_carried_on(tmp_path: Path, opened: Opened) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with SimulatedService(faults=Faults(latency_s=0.02)) as service:
        model = opened(teacher(service.base_url, tmp_path / "cache", max_attempts=2))
        answer = service.complete

        def until_the_outage(request: Any, fault: str | None) -> Any:
            if service.ledger.answered >= 40:
                service.faults = Faults(outage=True)
            return answer(request, fault)

        service.complete = until_the_outage  # type: ignore[method-assign]
        with pytest.raises(RemoteError, match="SERVICE_DOWN"):
            write(model, tmp_path / "one", 100)
        assert not (tmp_path / "one" / "train.jsonl").exists()
        done = service.ledger.answered
        service.complete, service.faults = answer, Faults()  # type: ignore[method-assign]
        ledger = write(opened(teacher(service.base_url, tmp_path / "cache")), tmp_path / "two", 100)
        assert ledger.rows_out == 100 and done >= 40
        assert service.ledger.repeated == 0 and service.ledger.answered == ledger.notes["requests"]


CHILD = """
import sys
from pathlib import Path
from test_fault_machine import teacher, write
url, cache, out, rows = sys.argv[1:]
write(teacher(url, Path(cache)), Path(out), int(rows))
"""


@pytest.mark.slow
def test_fifty_kills_repeat_no_kept_call_and_no_more_than_were_in_flight(tmp_path: Path) -> None:
    draw, kills, cache = random.Random(1), 0, tmp_path / "cache"
    (tmp_path / "out").mkdir()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path])}
    with SimulatedService(faults=Faults(latency_s=0.1)) as service:
        args = [sys.executable, "-c", CHILD, service.base_url, str(cache), str(tmp_path / "out"), "1000"]
        while True:
            answered = {json.dumps(held["request"]["messages"]) for held in kept(cache)}
            begun, before = len(service.requests), service.ledger.requests
            child = subprocess.Popen(args, env=env)
            if kills < 50:
                wait = time.monotonic() + 30
                while service.ledger.requests == before and child.poll() is None and time.monotonic() < wait:
                    time.sleep(0.005)
                time.sleep(draw.uniform(0.0, 0.25))
                if child.poll() is None:
                    child.send_signal(signal.SIGKILL)
            code = child.wait(120)
            assert not asked(service.requests[begun:]).keys() & answered, "a kept call was asked again"
            if code != -signal.SIGKILL:
                break
            kills += 1
        assert code == 0 and kills == 50
        repeats = sum(count - 1 for count in asked(service.requests).values())
    assert 0 < repeats <= kills * CONCURRENCY
    assert len(read_examples(tmp_path / "out" / "train.jsonl")) == 1000

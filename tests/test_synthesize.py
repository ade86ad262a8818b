"""Synthesis against real HTTP: quota, filters with reasons, balanced books, early stops, reruns without calls."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_service import Reply, Scripted, _close, chat, client, error, serving  # noqa: F401  `_close` is a fixture

from understudy.config import DedupeConfig, SynthesizeConfig
from understudy.core.records import Document, Example, Ledger, read_examples, read_jsonl
from understudy.data.splits.decontaminate import firewall
from understudy.data.splits.guard import Protected, build, save
from understudy.data.synthesis.cells import Cell
from understudy.data.synthesis.material import Material
from understudy.data.synthesis.quota import Quota
from understudy.data.synthesis.synthesize import synthesize
from understudy.data.synthesis.texts import normalised, prompt_key
from understudy.errors import DataError, RemoteError
from understudy.models.service import ServiceModel
from understudy.models.simulated import Faults, SimulatedService

FIRST = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivo", "June"]
LAST = ["Marlow", "Stone", "Okafor", "Petrov", "Lindqvist", "Tanaka", "Moreau", "Castillo", "Novak", "Byrne"]
TOPIC = ["Optics", "Algebra", "Botany", "Logic", "Rhetoric", "Genetics", "Acoustics", "Ceramics", "Statics", "Ethics"]


def course(i: int) -> dict[str, str]:
    draw = random.Random(i)
    return {
        "code": f"{draw.choice('ABCDEFG')}{100 + i}",
        "topic": TOPIC[i % 10],
        "who": f"{draw.choice(FIRST)} {draw.choice(LAST)}",
        "hour": f"{draw.randint(8, 19)}:{draw.choice(['00', '15', '30', '45'])}",
    }


def text(c: dict[str, str]) -> str:
    return (
        f"{c['code']} is a course on {c['topic']}. {c['who']} teaches {c['code']}. {c['code']} starts at {c['hour']}."
    )


def seed(i: int, category: str) -> Example:
    c = course(i)
    question, answer, fact = {
        "who": (f"Who teaches {c['code']}?", f"{c['code']} is taught by {c['who']}.", c["who"]),
        "when": (f"When does {c['code']} start?", f"{c['code']} starts at {c['hour']}.", c["hour"]),
    }[category]
    user = {"role": "user", "content": f"{text(c)}\n\nQuestion: {question}"}
    meta = {"category": category, "facts": [fact], "context": text(c), "question": question}
    return Example(f"{category}-{i}", [user, {"role": "assistant", "content": answer}], meta)


SEEDS = [seed(i, category) for i in range(6) for category in ("who", "when")]
DOCUMENTS = [Document(f"d{i}", text(course(i)), {"group": f"g{i}", "licence": "CC0-1.0"}) for i in range(20, 60)]
CFG = SynthesizeConfig(rows=24, rows_per_call=2, seeds_per_call=3)


def run(teacher: ServiceModel, out: Path, wanted: dict[str, int] | Quota | None = None, **changes: Any) -> Ledger:
    """A round over SEEDS and DOCUMENTS; `wanted` by category, or a whole quota."""
    cfg = changes.pop("cfg", CFG)
    given = {"seeds": SEEDS, "documents": DOCUMENTS, "near": DedupeConfig(), **changes}
    round_number, progress = given.pop("round", 1), given.pop("progress", None)
    if not isinstance(wanted, Quota):
        wanted = Quota({Cell(category): rows for category, rows in (wanted or {"who": 12, "when": 12}).items()})
    return synthesize(cfg, teacher, Material(**given), quota=wanted, round=round_number, out=out, progress=progress)


def kept(out: Path) -> list[Example]:
    return read_examples(out / "train.jsonl")


# With the simulated teacher


def test_the_quota_is_met_and_every_row_is_traceable(tmp_path: Path) -> None:
    with SimulatedService() as service:
        ledger = run(client(service.base_url), tmp_path)
    rows = kept(tmp_path)
    assert Counter(e.meta["category"] for e in rows) == {"who": 12, "when": 12}
    assert ledger.balanced and ledger.rows_out == 24
    documents = {d.id: d for d in DOCUMENTS}
    for e in rows:
        *seeds, document = e.meta["parents"]
        assert e.messages[0]["content"] == f"{documents[document].text}\n\nQuestion: {e.meta['question']}"
        assert len(seeds) == 3 and all(s.startswith(e.meta["category"]) for s in seeds)
        assert e.meta["group"] == documents[document].meta["group"] and e.meta["licence"] == "CC0-1.0"
        assert e.meta["source"] == "synthetic" and e.meta["round"] == 1 and len(e.meta["prompt_hash"]) == 64
        assert e.meta["teacher"]["model"] == "simulated-1" and e.meta["teacher"]["version"]
        assert all(f in (e.answer or "") and f in documents[document].text for f in e.meta["facts"])
    assert len({e.id for e in rows}) == len({prompt_key(e) for e in rows}) == 24


def test_a_rerun_gives_the_same_bytes_and_costs_no_call(tmp_path: Path) -> None:
    with SimulatedService() as service:
        run(client(service.base_url, tmp_path / "cache"), tmp_path / "a")
        calls = service.ledger.requests
        assert calls >= 12
    with SimulatedService() as service:  # another port: after a restart
        run(client(service.base_url, tmp_path / "cache"), tmp_path / "b")
        assert service.ledger.requests == 0
    for name in ("train.jsonl", "rejects.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_crash_in_the_middle_pays_only_for_the_rest(tmp_path: Path) -> None:
    class Killed(BaseException): ...

    def kill(done: int, total: int, values: dict[str, float]) -> None:
        raise Killed

    with SimulatedService() as service:
        with pytest.raises(Killed):
            run(client(service.base_url, tmp_path / "cache"), tmp_path / "a", progress=kill)
        paid = service.ledger.requests
        run(client(service.base_url, tmp_path / "cache"), tmp_path / "a")
        through = service.ledger.requests
        run(client(service.base_url), tmp_path / "b")
        whole = service.ledger.requests - through
    assert 0 < paid < whole and through == whole


def test_faults_change_nothing_but_the_bill(tmp_path: Path) -> None:
    with SimulatedService() as service:
        run(client(service.base_url), tmp_path / "well")
    faults = Faults(rate_429=0.1, retry_after_s=0.01, rate_500=0.1, rate_cut=0.1)
    with SimulatedService(faults=faults) as service:
        teacher = client(service.base_url, max_attempts=20)
        ledger = run(teacher, tmp_path / "ill")
        assert teacher.calls["requests"] == service.ledger.requests and teacher.calls["retries"] > 0
        assert service.ledger.balanced and ledger.balanced
    assert (tmp_path / "ill/train.jsonl").read_bytes() == (tmp_path / "well/train.jsonl").read_bytes()


def test_later_rounds_write_new_rows_from_new_requests(tmp_path: Path) -> None:
    few = DOCUMENTS[:30]
    with SimulatedService() as service:
        run(client(service.base_url, tmp_path / "cache"), tmp_path / "1", documents=few)
        first, before = kept(tmp_path / "1"), service.ledger.requests
        ledger = run(
            client(service.base_url, tmp_path / "cache"), tmp_path / "2", documents=few, round=2, earlier=first
        )
        assert service.ledger.requests > before
    second = kept(tmp_path / "2")
    assert not {prompt_key(e) for e in second} & {prompt_key(e) for e in first}
    assert ledger.balanced and {e.meta["round"] for e in second} == {2}
    used = {e.meta["parents"][-1] for e in first}
    assert {d.id for d in few} - used <= {e.meta["parents"][-1] for e in second}, "unused documents come first"


def test_documents_that_run_out_leave_a_note_not_a_loop(tmp_path: Path) -> None:
    with SimulatedService() as service:
        ledger = run(client(service.base_url), tmp_path, {"who": 8}, documents=DOCUMENTS[:4], cfg=CFG)
        assert service.ledger.requests <= 4 * 4
    assert ledger.balanced and ledger.rows_out + ledger.notes.get("short:who", 0) == 8


def test_an_outage_is_an_error_of_the_service(tmp_path: Path) -> None:
    with SimulatedService(faults=Faults(outage=True)) as service, pytest.raises(RemoteError):
        run(client(service.base_url, max_attempts=1), tmp_path, {"who": 100}, cfg=CFG)


# With scripted replies: each filter


def blocks(request: dict[str, Any]) -> dict[str, Any]:
    lines = request["messages"][-1]["content"].split("\n")
    return {
        line.removesuffix(" (JSON):"): json.loads(lines[i + 1]) for i, line in enumerate(lines) if "(JSON):" in line
    }


def good(request: dict[str, Any]) -> dict[str, Any]:
    asked = blocks(request)
    words = asked["DOCUMENT"]["text"].split()
    n = asked["VARIANT"]
    who = " ".join(words[6:8])
    return {
        "question": f"Tell me number {n}: who is the teacher of {words[0]}?" if n else f"Whose course is {words[0]}?",
        "answer": f"It is {who} who gives {words[0]}.",
        "facts": [who],
        "category": asked["CATEGORY"],
    }


Maker = Callable[[dict[str, Any]], Any]


@contextmanager
def teaching(make: Maker, every: int = 3) -> Iterator[tuple[Scripted, str]]:
    """A teacher that writes a good row, and one more made by `make`, whatever it is asked for."""

    def script(request: dict[str, Any], before: int) -> Reply:
        return chat(json.dumps({"examples": [good(request), make(request)]}))

    with serving(script) as running:
        yield running


def but(**changes: Any) -> Maker:
    return lambda request: {**good(request), "question": "Who?", **changes}


def from_seed(request: dict[str, Any]) -> dict[str, Any]:
    shown = blocks(request)["SEED EXAMPLES"][0]
    return {**good(request), "question": shown["question"], "answer": shown["answer"].upper()}


REJECTED: list[tuple[str, Maker]] = [
    ("schema", lambda r: "a text"),
    ("schema", but(question=None)),
    ("schema", but(answer=["x"])),
    ("schema", but(facts="Ada")),
    ("schema", but(facts=[1])),
    ("category", but(category="poetry")),
    ("empty", but(question=" ?! ")),
    ("empty", but(answer="")),
    ("empty", but(facts=[])),
    ("length", lambda r: {**good(r), "answer": good(r)["answer"] + " indeed" * 200}),
    ("length", lambda r: {**good(r), "question": "who" * 200}),
    ("refusal", but(answer="I'm sorry, but I can't help with that.")),
    ("refusal", but(answer="As an AI model I do not know.")),
    ("echo_question", lambda r: {**good(r), "question": good(r)["answer"].replace(".", "?")}),
    ("echo_seed", from_seed),
    ("fact_not_in_answer", lambda r: {**good(r), "question": "Q?", "answer": "Nobody knows."}),
    ("unfaithful", but(answer="It is Zed Zebra.", facts=["Zed Zebra"])),
    ("unfaithful", lambda r: {**good(r), "question": "Q?", "answer": good(r)["answer"] + " It costs 77."}),
    ("duplicate", good),
    ("duplicate", lambda r: {**good(r), "question": good(r)["question"].upper() + "!!"}),
]


@pytest.mark.parametrize(("reason", "make"), REJECTED, ids=[f"{i}-{r}" for i, (r, _) in enumerate(REJECTED)])
def test_a_bad_row_is_rejected_with_its_reason_and_the_good_one_kept(reason: str, make: Maker, tmp_path: Path) -> None:
    with teaching(make) as (_, url):
        ledger = run(client(url), tmp_path, {"who": 6})
    assert ledger.rejected.pop("over_quota", 0) >= 0
    assert set(ledger.rejected) == {reason} and ledger.rejected[reason] >= 3
    assert len(kept(tmp_path)) == 6 == ledger.rows_out
    rejects = list(read_jsonl(tmp_path / "rejects.jsonl"))
    assert all(set(r) == {"where", "reason", "detail"} for r in rejects)
    assert sum(r["reason"] == reason for r in rejects) == ledger.rejected[reason]


def test_a_seeds_own_prompt_is_rejected(tmp_path: Path) -> None:
    def copy(request: dict[str, Any]) -> dict[str, Any]:
        code = blocks(request)["DOCUMENT"]["text"].split()[0]
        return {**good(request), "question": f"who teaches {code}"}

    documents = [Document(f"s{i}", text(course(i))) for i in range(6)]
    with teaching(copy) as (_, url):
        ledger = run(client(url), tmp_path, {"who": 6}, documents=documents)
    assert ledger.rejected["same_as_seed"] >= 3 and len(kept(tmp_path)) == 6


def bare(example: Example, *, system: bool = False) -> Example:
    """The pair as a source without context, facts and category gives it."""
    turns = [{"role": "user", "content": example.meta["question"]}, example.messages[-1]]
    return Example(example.id, [{"role": "system", "content": "Be brief."}, *turns] if system else turns, {})


def test_without_categories_every_seed_is_written_from_and_any_category_is_taken(tmp_path: Path) -> None:
    seeds = [bare(s) for s in SEEDS]
    cfg = SynthesizeConfig(rows=12, rows_per_call=2, seeds_per_call=3)
    with teaching(but(question="Which hour?", category="poetry")) as (_, url):
        ledger = run(client(url), tmp_path, {"": 12}, seeds=seeds, cfg=cfg)
    assert ledger.rows_out == 12 and not any("category" in e.meta for e in kept(tmp_path))
    assert "category" not in ledger.rejected


@pytest.mark.parametrize("system", [False, True])
def test_a_row_has_the_shape_of_the_seeds_prompts(tmp_path: Path, system: bool) -> None:
    with teaching(good) as (_, url):
        run(client(url), tmp_path, {"": 6}, seeds=[bare(s, system=system) for s in SEEDS])
    for e in kept(tmp_path):
        assert [m["role"] for m in e.messages] == ["system"] * system + ["user", "assistant"]
        assert e.prompt[-1]["content"].startswith("Whose course is ") and "context" not in e.meta
        assert not system or e.messages[0]["content"] == "Be brief."


def test_a_context_that_stands_in_the_prompt_alone_is_a_context_too(tmp_path: Path) -> None:
    seeds = [Example(s.id, s.messages, {"facts": s.meta["facts"]}) for s in SEEDS]
    with SimulatedService() as service:
        run(client(service.base_url), tmp_path, {"": 6}, seeds=seeds)
    texts = {d.text for d in DOCUMENTS}
    written = [e.prompt[-1]["content"].rpartition("\n\nQuestion: ")[0] for e in kept(tmp_path)]
    assert len(written) == 6 and set(written) <= texts


def test_failed_requests_and_unreadable_replies_are_in_the_books(tmp_path: Path) -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        number = int(blocks({"messages": [{"content": request["messages"][-1]["content"].split("\n\nYour last")[0]}]})
                     ["DOCUMENT"]["text"].split()[0][1:])  # fmt: skip
        if number % 5 == 0:
            return error(422, message="no")
        return chat("Certainly!") if number % 5 == 1 else chat(json.dumps({"examples": [good(request)] * 1}))

    with serving(script) as (_, url):
        ledger = run(client(url), tmp_path, {"who": 20}, cfg=CFG.model_copy(update={"min_yield": 0.1}))
    assert ledger.balanced and ledger.rejected["request_failed"] >= 2 and ledger.rejected["bad_json"] >= 2
    assert len(kept(tmp_path)) == 20


# Early stops


def test_a_teacher_that_does_not_do_the_job_stops_after_a_fifth_of_the_calls(tmp_path: Path) -> None:
    def refuse(request: dict[str, Any], before: int) -> Reply:
        row = {**good(request), "answer": "I cannot do that, " + good(request)["answer"]}
        return chat(json.dumps({"examples": [row, row]}))

    seen = r"SYNTH_YIELD.*0 of the first 20 .*refusal 20.*the simulated teacher knows little"
    with serving(refuse) as (server, url), pytest.raises(DataError, match=seen):
        run(client(url), tmp_path, {"who": 60, "when": 40})
    assert server.hits == 10
    assert not (tmp_path / "train.jsonl").exists()


def test_near_identical_replies_stop_with_a_diversity_figure(tmp_path: Path) -> None:
    def parrot(request: dict[str, Any], before: int) -> Reply:
        row = {"question": "Who teaches the course that everyone here is asking about today?", "facts": ["course"]}
        n = blocks(request)["VARIANT"]
        return chat(json.dumps({"examples": [{**row, "answer": f"It is a course on the thing that you asked, {n}"}]}))

    with serving(parrot) as (server, url), pytest.raises(DataError, match=r"SYNTH_COLLAPSE.*diversity 0\.0"):
        run(client(url), tmp_path, {"who": 60, "when": 40})
    assert server.hits == 10


def test_prompts_are_compared_without_case_punctuation_and_space() -> None:
    assert normalised("Who  teaches\nB-12?") == normalised("who teaches b 12") != normalised("who teaches b12")


def test_a_teacher_that_knows_a_held_pair_by_heart_loses_that_row(tmp_path: Path) -> None:
    """The firewall sees fingerprints only; nothing else that synthesis is given holds the held pair."""
    held, other = seed(70, "who"), seed(71, "when")
    guarded = [Protected(e, "held", 5, e.id) for e in (held, other)]
    save(build(guarded, 4, 0.5), tmp_path / "guard")
    wall = firewall(tmp_path / "guard", [*SEEDS, *DOCUMENTS])

    def recite(request: dict[str, Any]) -> dict[str, Any]:
        """The held pair, in other letters, though the document says nothing of the kind."""
        answer = str(held.answer).upper().replace(" ", "\u00a0 ")
        return {**good(request), "question": held.meta["question"], "answer": answer, "facts": []}

    def lenient(e: Example) -> Example:
        return Example(e.id, e.messages, {k: v for k, v in e.meta.items() if k != "facts"})

    digits = {"documents": [Document(d.id, f"{d.text} {held.answer}", d.meta) for d in DOCUMENTS]}
    given = {"seeds": [lenient(s) for s in SEEDS], "cfg": CFG.model_copy(update={"min_yield": 0.0}), **digits}
    for name, against in (("open", None), ("walled", wall)):
        with teaching(recite) as (_, address):
            ledger = run(client(address), tmp_path / name, firewall=against, **given)
        assert ledger.balanced
        shown = [
            e for e in kept(tmp_path / name) if normalised(e.meta["question"]) == normalised(held.meta["question"])
        ]
        assert bool(shown) == (against is None)
    rejects = [r for r in read_jsonl(tmp_path / "walled" / "rejects.jsonl") if r["reason"] == "LEAK_NGRAM"]
    assert rejects and all(r["detail"].endswith(held.id) for r in rejects)
    assert str(held.meta["question"]) not in (tmp_path / "walled" / "rejects.jsonl").read_text()

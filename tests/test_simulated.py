"""The simulated service LLM through real HTTP and the official client: protocol, faults, teacher, judge, service."""

from __future__ import annotations

import concurrent.futures
import json
import random
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import openai
import pytest

from understudy.core.records import Example
from understudy.errors import ConfigError
from understudy.models.simulated import FINGERPRINT, MODEL_ID, Faults, SimulatedService
from understudy.models.simulated.judge import judge
from understudy.models.simulated.teacher import Task, synthesize

ROOT = Path(__file__).parents[1]
PAGE = "Zog lives in a cave. Mara lives in a tower. Both like tea."
QUESTION = "Where does Mara live?"


def client(service: SimulatedService, timeout: float = 20.0) -> openai.OpenAI:
    return openai.OpenAI(base_url=service.base_url, api_key="none", max_retries=0, timeout=timeout)


def ask(api: openai.OpenAI, text: str, **more: Any) -> Any:
    return api.chat.completions.create(model=MODEL_ID, messages=[{"role": "user", "content": text}], **more)


def outcome(api: openai.OpenAI, text: str) -> str:
    """What a client sees of one request: a text, or the kind of failure."""
    try:
        return str(ask(api, text).choices[0].message.content)
    except openai.APIStatusError as e:
        return f"{e.status_code} {e.code}"
    except openai.APIConnectionError as e:
        return type(e).__name__


@pytest.fixture(scope="module")
def pairs(advisor: ModuleType) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Coverage pairs as (60 seeds, 180 others), divided by professor."""
    rows = advisor.coverage(random.Random(9), advisor.professors(7)[-advisor.ASKED :])
    groups = sorted({row["group"] for row in rows})
    shown = set(random.Random(1).sample(groups, 15))
    return [r for r in rows if r["group"] in shown], [r for r in rows if r["group"] not in shown]


def example(row: dict[str, Any]) -> Example:
    messages = [
        {"role": "user", "content": f"{row['context']}\n\nQuestion: {row['question']}"},
        {"role": "assistant", "content": row["answer"]},
    ]
    return Example(row["id"], messages, {k: row[k] for k in ("context", "question", "facts", "category")})


def synthesis(seeds: list[dict[str, Any]], document: str, category: str, how_many: int = 4, variant: int = 0) -> str:
    """The prompt of docs/architecture.md."""
    keep = ("context", "question", "answer", "facts", "category")
    shown = [{k: s[k] for k in keep if k in s} for s in seeds]
    blocks = {
        "SEED EXAMPLES": shown,
        "DOCUMENT": {"text": document},
        "CATEGORY": category,
        "HOW MANY": how_many,
        "VARIANT": variant,
    }
    return "Write examples.\n" + "\n".join(
        f"{k} (JSON):\n{json.dumps(v, ensure_ascii=False)}" for k, v in blocks.items()
    )


# --- protocol ---------------------------------------------------------------------------------------------------------


def test_a_chat_is_answered_from_its_own_context_with_usage_and_fingerprint() -> None:
    with SimulatedService() as service:
        reply = ask(client(service), f"{PAGE}\n\nQuestion: {QUESTION}")
    assert reply.choices[0].message.content == "Mara lives in a tower."
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.model, reply.system_fingerprint) == (MODEL_ID, FINGERPRINT)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 20


def test_a_stream_joins_to_the_whole_answer_and_reports_usage_when_asked() -> None:
    with SimulatedService() as service:
        api = client(service)
        prompt = f"{PAGE}\n\nQuestion: {QUESTION}"
        whole = ask(api, prompt)
        chunks = list(ask(api, prompt, stream=True, stream_options={"include_usage": True}))
        plain = list(ask(api, prompt, stream=True))
    texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(texts) == whole.choices[0].message.content and len(texts) > 4
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert [c.usage for c in chunks if c.usage] == [whole.usage] and chunks[-1].choices == []
    assert all(c.choices for c in plain)
    # Streamed or not, it is the same request: one hash, hence one row of faults.
    assert {whole.id} == {c.id for c in [*chunks, *plain]}


def test_max_tokens_cuts_with_the_reason_length_and_stop_cuts_before_the_word() -> None:
    with SimulatedService() as service:
        api = client(service)
        short = ask(api, f"{PAGE}\n\nQuestion: {QUESTION}", max_tokens=2).choices[0]
        stopped = ask(api, f"{PAGE}\n\nQuestion: {QUESTION}", stop=[" in"]).choices[0]
    assert (short.message.content, short.finish_reason) == ("Mara lives", "length")
    assert (stopped.message.content, stopped.finish_reason) == ("Mara lives", "stop")


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": 3}]}, 400, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages[0].role"),
        ({"max_tokens": True}, 400, "max_tokens"),
        ({"temperature": 3}, 400, "temperature"),
        ({"stop": [""]}, 400, "stop"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
    ],
)
def test_wrong_requests_are_refused_in_the_official_shape(change: dict[str, Any], status: int, param: str) -> None:
    body = {"model": MODEL_ID, "messages": [{"role": "user", "content": "x"}], **change}
    with SimulatedService() as service, pytest.raises(openai.APIStatusError) as caught:
        client(service).post("/chat/completions", body=body, cast_to=object)
    assert (caught.value.status_code, caught.value.param) == (status, param)
    assert caught.value.type == "invalid_request_error"
    assert service.ledger.refused == 1 and service.ledger.balanced


def test_models_health_and_unknown_addresses() -> None:
    with SimulatedService() as service:
        api = client(service)
        assert [m.id for m in api.models.list()] == [MODEL_ID]
        assert api.models.retrieve(MODEL_ID).id == MODEL_ID
        with pytest.raises(openai.NotFoundError):
            api.embeddings.create(model=MODEL_ID, input="x", encoding_format="float")
        health = api.with_options(base_url=service.base_url.removesuffix("/v1"))
        assert health.get("/health", cast_to=object) == {"status": "ok"}
        service.faults = Faults(outage=True)
        with pytest.raises(openai.InternalServerError):
            health.get("/health", cast_to=object)


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "name", "seen"),
    [
        (Faults(rate_429=1), "429", "429 rate_limit_exceeded"),
        (Faults(rate_500=1), "500", "500 internal_error"),
        (Faults(outage=True), "outage", "503 overloaded"),
        (Faults(rate_cut=1), "cut", "APIConnectionError"),
        (Faults(rate_silence=1, silence_s=0.1), "silence", "APIConnectionError"),
    ],
)
def test_each_fault_reaches_the_client_and_is_counted(faults: Faults, name: str, seen: str) -> None:
    with SimulatedService(faults=faults) as service:
        assert [outcome(client(service), "Hello there.") for _ in range(3)] == [seen] * 3
    assert service.ledger.faults == {name: 3}
    assert service.ledger.requests == 3 and service.ledger.balanced


def test_silence_outlasts_a_short_client_timeout() -> None:
    with SimulatedService(faults=Faults(rate_silence=1, silence_s=30)) as service:
        assert outcome(client(service, timeout=0.2), "Hello.") == "APITimeoutError"


def test_a_rate_limit_says_how_long_to_wait() -> None:
    faults = Faults(rate_429=1, retry_after_s=7)
    with SimulatedService(faults=faults) as service, pytest.raises(openai.RateLimitError) as caught:
        ask(client(service), "Hello.")
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers["x-request-id"].endswith("-1")


def test_a_cut_stream_never_looks_whole() -> None:
    seen = []
    with SimulatedService(faults=Faults(rate_cut=1)) as service, pytest.raises(Exception) as caught:
        for chunk in ask(client(service), f"{PAGE}\n\nQuestion: {QUESTION}", stream=True):
            seen.append(chunk.choices[0])
    # The SDK passes the transport's own error on, so its type depends on the transport.
    assert type(caught.value).__module__.split(".")[0] in ("openai", "httpx", "httpx2")
    assert seen and not [c for c in seen if c.finish_reason]
    assert service.ledger.faults == {"cut": 1}


def test_malformed_content_is_no_json_inside_a_sound_reply(pairs: tuple[list[dict[str, Any]], Any]) -> None:
    rooms = [p for p in pairs[0] if p["category"] == "room"]
    with SimulatedService(faults=Faults(rate_malformed=1)) as service:
        for prompt in (synthesis(rooms[:4], rooms[4]["context"], "room"), "Hello."):
            content = ask(client(service), prompt).choices[0].message.content
            with pytest.raises(ValueError):
                json.loads(content)
    assert service.ledger.faults == {"malformed": 2} and service.ledger.balanced


@pytest.mark.slow
def test_latency_delays_every_answer() -> None:
    import time

    with SimulatedService() as service:
        api = client(service)
        ask(api, "Hello.")
        for latency_s, slow in ((0.0, False), (1.5, True)):
            service.faults = Faults(latency_s=latency_s)
            start = time.monotonic()
            ask(api, "Hello.")
            assert (time.monotonic() - start >= 1.5) == slow


def test_impossible_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="fault rates"):
        Faults(rate_429=0.6, rate_500=0.6)


MIXED = Faults(rate_429=0.2, rate_500=0.2, rate_cut=0.1, rate_malformed=0.1)


def storm(service: SimulatedService, workers: int) -> list[list[str]]:
    """Three attempts of each of 30 requests; the requests run concurrently, the attempts of one in order."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool, client(service) as api:
        return list(pool.map(lambda i: [outcome(api, f"Item {i} is red. Hello.") for _ in range(3)], range(30)))


def test_answers_and_faults_are_equal_after_a_restart_under_any_concurrency_and_nothing_is_lost() -> None:
    seen = []
    for workers in (1, 8):
        with SimulatedService(seed=5, faults=MIXED) as service:
            seen.append(storm(service, workers))
        ledger = service.ledger
        assert ledger.requests == 90 == ledger.answered + sum(ledger.faults.values())
        assert len(service.requests) == ledger.roles["service"] == 90
        flat = [o for attempts in seen[-1] for o in attempts]
        by_kind = Counter(
            "429" if o.startswith("429") else "500" if o.startswith("500") else "cut" if "Error" in o
            else "malformed" if o.startswith("{") else "answered"
            for o in flat
        )  # fmt: skip
        assert by_kind.pop("answered") == ledger.answered and by_kind == ledger.faults and len(by_kind) == 4
    assert seen[0] == seen[1]
    assert any(len(set(attempts)) > 1 for attempts in seen[0])
    with SimulatedService(seed=6, faults=MIXED) as service:
        assert storm(service, 8) != seen[0]


def test_the_command_form_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    code = (
        "import sys; from understudy.models.simulated import run_forever\n"
        "ledger = run_forever(None, port=0, on_ready=lambda url: print(url, flush=True))\n"
        "print(ledger.requests, ledger.balanced)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout
        url = process.stdout.readline().strip()
        api = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=20)
        assert ask(api, f"{PAGE}\n\nQuestion: {QUESTION}").choices[0].message.content == "Mara lives in a tower."
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (rest, process.returncode) == ("1 True\n", 0)


def test_a_taken_port_is_an_error_and_not_a_second_service() -> None:
    with SimulatedService() as service:
        port = int(service.base_url.split(":")[-1].split("/")[0])
        with pytest.raises(OSError), SimulatedService(port=port):
            pass


# --- teacher ----------------------------------------------------------------------------------------------------------


def true_row(advisor: ModuleType, professor: Any, row: dict[str, Any]) -> bool:
    """Against the generator's own facts: question, answer and facts all belong to one course of this professor."""
    category = row["category"]
    for slots in (professor.slots(i, order) for i in (0, 1) for order in (False, True)):
        asked = row["question"] in [q.format(**slots) for q in advisor.QUESTIONS[category]]
        facts = [slots[name] for name in advisor.FACTS[category]]
        if asked and row["answer"] == advisor.ANSWERS[category].format(**slots) and row["facts"] == facts:
            return True
    return False


def written(
    service: SimulatedService, advisor: ModuleType, seeds: list[dict[str, Any]], documents: int
) -> Iterator[tuple[Any, dict[str, Any]]]:
    rng, api = random.Random(3), client(service)
    for i, professor in enumerate(advisor.professors(7)[:documents]):
        category = advisor.CATEGORIES[i % len(advisor.CATEGORIES)]
        shown = rng.sample([s for s in seeds if s["category"] == category], 4)
        prompt = synthesis(shown, " ".join(professor.sentences), category, variant=i)
        for row in json.loads(ask(api, prompt).choices[0].message.content)["examples"]:
            yield professor, row


def test_every_row_of_the_teacher_is_true_of_its_document(advisor: ModuleType, pairs: Any) -> None:
    with SimulatedService() as service:
        rows = list(written(service, advisor, pairs[0], 120))
    assert service.ledger.roles == {"teacher": 120}
    for professor, row in rows:
        assert true_row(advisor, professor, row), row
        assert all(f in " ".join(professor.sentences) and f in row["answer"] for f in row["facts"])
    assert {row["category"] for _, row in rows} == set(advisor.CATEGORIES)
    assert len(rows) / (120 * 4) > 0.5


def test_a_wrong_rate_of_one_half_makes_half_of_the_rows_wrong_but_plausible(advisor: ModuleType, pairs: Any) -> None:
    with SimulatedService(wrong_rate=0.5) as service:
        rows = list(written(service, advisor, pairs[0], 120))
    wrong = [(p, r) for p, r in rows if not true_row(advisor, p, r)]
    assert 0.4 < len(wrong) / len(rows) < 0.6
    assert {r["category"] for _, r in wrong} == set(advisor.CATEGORIES)
    assert all(f in " ".join(p.sentences) and f in r["answer"] for p, r in wrong for f in r["facts"])


def test_variants_of_a_request_bring_other_rows(advisor: ModuleType, pairs: Any) -> None:
    rooms = [s for s in pairs[0] if s["category"] == "room"]
    document = " ".join(advisor.professors(7)[0].sentences)
    replies = []
    for variant in range(4):
        seeds = [{k: v for k, v in s.items() if k != "group"} for s in rooms]
        task = Task(seeds, document, "room", 2, variant)
        replies.append(synthesize(task, request_hash=str(variant), seed=0, wrong_rate=0)["examples"])
    questions = [row["question"] for reply in replies for row in reply]
    assert len(questions) == 8 and len(set(questions)) >= 6


FERRIES = [
    ("Blue Heron", "Sandwick", "4.50", "Every hour"),
    ("Grey Seal", "Port Ellis", "12.00", "Twice a day"),
    ("North Star", "Holm", "7.25", "On Sundays"),
    ("Old Marten", "Castle Bay", "3.80", "At noon"),
]


def ferry_page(ferry: tuple[str, str, str, str], other: tuple[str, str, str, str]) -> str:
    return (
        f"The ferry {ferry[0]} sails to {ferry[1]}. A ticket costs {ferry[2]} euros. "
        f"The ferry {other[0]} sails to {other[1]}. A ticket costs {other[2]} euros."
    )


def test_the_teacher_works_in_a_domain_it_was_not_written_for() -> None:
    """Facts and key stand in two different sentences here."""
    seeds = [
        {
            "context": ferry_page(FERRIES[0], FERRIES[1]),
            "question": f"How much is the {FERRIES[0][0]}?",
            "answer": f"You pay {FERRIES[0][2]} euros on the {FERRIES[0][0]}.",
            "facts": [FERRIES[0][2]],
            "category": "price",
        }
    ]
    task = Task(seeds, ferry_page(FERRIES[2], FERRIES[3]), "price", 4, 0)
    rows = synthesize(task, request_hash="x", seed=0, wrong_rate=0)["examples"]
    assert sorted(r["answer"] for r in rows) == [
        "You pay 3.80 euros on the Old Marten.",
        "You pay 7.25 euros on the North Star.",
    ]
    assert all(r["facts"][0] in r["answer"] for r in rows)


@pytest.mark.parametrize(
    ("seed", "document"),
    [
        ({"prompt": "Say hello", "answer": "Hello.", "facts": ["Hello"], "category": "a"}, "Some text."),
        ({"context": "A b.", "question": "What?", "answer": "c", "facts": ["z"], "category": "a"}, "Some text."),
        (
            {"context": PAGE, "question": QUESTION, "answer": "A tower.", "facts": ["tower"], "category": "a"},
            "No match.",
        ),
    ],
)
def test_the_teacher_returns_no_row_when_the_seeds_teach_nothing(seed: dict[str, Any], document: str) -> None:
    assert synthesize(Task([seed], document, "a", 4, 0), request_hash="x", seed=0, wrong_rate=0) == {"examples": []}


def test_a_word_that_opens_a_sentence_is_not_taken_for_a_part_of_a_name() -> None:
    seed = {"context": "Ann Lee lives in Holm.", "question": "Where is Ann Lee?", "answer": "Ann Lee is in Holm."}
    for document, expected in (("Since Odo Finn lives in Ulm.", {"Odo Finn is in Ulm."}), ("Odo lives in Odo.", set())):
        task = Task([{**seed, "facts": ["Holm"], "category": "a"}], document, "a", 4, 0)
        assert {r["answer"] for r in synthesize(task, request_hash="x", seed=0, wrong_rate=0)["examples"]} == expected


def test_a_document_with_odd_line_separators_is_still_read() -> None:
    seeds = [{"context": PAGE, "question": QUESTION, "answer": "A tower it is.", "facts": ["tower"], "category": "a"}]
    with SimulatedService() as service:
        reply = ask(client(service), synthesis(seeds, "Odo lives in a barn.\u2028Note.\x85", "a"))
    assert service.ledger.roles == {"teacher": 1}
    assert [r["answer"] for r in json.loads(reply.choices[0].message.content)["examples"]] == ["A barn it is."]


# --- judge ------------------------------------------------------------------------------------------------------------

WHEN = ("When does Applied Zorel meet?", "You will find Applied Zorel in the timetable every Monday at 10:30.")
ROOM = ("Where is Applied Zorel?", "Please go to room B12 for Applied Zorel.")
WHO = ("Who teaches Applied Zorel?", "Your professor for Applied Zorel would be Ilka Brandt.")
LIKE = ("What do students say about Ilka Brandt?", "Fellow students describe Ilka Brandt as patient but strict.")
BOTH = ("What does Ilka Brandt teach?", "This year Ilka Brandt offers Applied Zorel as well as Marine Ethics.")
CREDITS = ("How many credits does Applied Zorel give?", "Passing Applied Zorel earns you 6 credits.")
COVERED, WRONG, MISSING, EXTRA, LOW = (True, True), (False, None), (False, None), (None, False), (False, False)


@pytest.mark.parametrize(
    ("pair", "answer", "expected"),
    [
        (WHEN, WHEN[1], COVERED),
        (WHEN, "Applied Zorel meets on Monday at 10:30.", COVERED),
        (WHEN, "It takes place every Monday, at 10:30.", COVERED),
        (WHEN, "Applied Zorel meets every Friday at 10:30.", WRONG),
        (WHEN, "Applied Zorel meets every Monday at 9:15.", WRONG),
        (WHEN, "You will find Applied Zorel in the timetable every Monday.", MISSING),
        (WHEN, "Applied Zorel meets on Monday at 10:30 and on Friday at 9:15.", EXTRA),
        (WHEN, "Marine Ethics meets every Monday at 10:30.", EXTRA),
        (WHEN, "Applied Zorel does not meet on Monday at 10:30.", WRONG),
        (ROOM, "Applied Zorel is held in room B12.", COVERED),
        (ROOM, "Please go to room C12 for Applied Zorel.", LOW),
        (ROOM, "Please go to room for Applied Zorel.", MISSING),
        (WHO, "Ilka Brandt teaches Applied Zorel.", COVERED),
        (WHO, "Your professor for Applied Zorel would be Olga Brandt.", WRONG),
        (WHO, "Your professor for Applied Zorel would be Marine Ethics.", LOW),
        (WHO, "Fellow students describe Ilka Brandt as lively but strict.", EXTRA),
        (WHO, "Ilka Brandt.", COVERED),
        (LIKE, "Students find Ilka Brandt patient but strict.", COVERED),
        (LIKE, "Fellow students describe Ilka Brandt as patient but rude.", LOW),
        (LIKE, "Fellow students describe Ilka Brandt as patient.", MISSING),
        (LIKE, "Fellow students describe Ilka Brandt as patient, rude but strict.", EXTRA),
        (BOTH, "Ilka Brandt teaches Marine Ethics and Applied Zorel.", COVERED),
        (BOTH, "This year Ilka Brandt offers Applied Zorel as well as Urban Logic.", LOW),
        (BOTH, "This year Ilka Brandt offers Applied Zorel.", MISSING),
        (CREDITS, "Applied Zorel gives six credits.", COVERED),
        (CREDITS, "Passing Applied Zorel earns you 9 credits.", LOW),
        (CREDITS, "", LOW),
        (CREDITS, "How many credits does Applied Zorel give?", LOW),
        (CREDITS, "I'm sorry, I cannot answer that.", LOW),
        (CREDITS, "I'm sorry, I do not know whether Applied Zorel gives 6 credits.", LOW),
        (CREDITS, "6 credits 6 credits 6 credits 6 credits 6 credits", LOW),
    ],
)
def test_grades_follow_the_facts(pair: tuple[str, str], answer: str, expected: tuple[bool | None, bool | None]) -> None:
    for jitter in (-1.0, 0.0, 1.0):
        grades = judge(*pair, answer, jitter=jitter)
        for name, above in zip(("similarity", "precision"), expected, strict=True):
            grade = grades[name]
            assert isinstance(grade, int) and 1 <= grade <= 100
            if above is not None:
                assert (grade >= 70) == above, (name, grades)
            if above is False:
                assert grade <= 66, (name, grades)


def test_more_wrong_facts_never_raise_a_grade() -> None:
    answers = [
        "You will find Applied Zorel in the timetable every Monday at 10:30.",
        "You will find Applied Zorel in the timetable every Friday at 10:30.",
        "You will find Applied Zorel in the timetable every Friday at 9:15.",
        "You will find Marine Ethics in the timetable every Friday at 9:15.",
    ]
    for name in ("similarity", "precision"):
        grades = [judge(*WHEN, answer)[name] for answer in answers]
        assert grades == sorted(grades, reverse=True) and grades[0] == 100, (name, grades)


@pytest.mark.parametrize("with_context", [False, True])
def test_the_judge_over_http_tells_references_from_wrong_answers(
    advisor: ModuleType, pairs: Any, with_context: bool
) -> None:
    """A prompt with the passage holds every fact; what the passage says is not given by the question."""
    rows = pairs[1][:24]
    with SimulatedService() as service:
        api = client(service)
        # The next row is about the same professor three times of four: another category of answer.
        for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
            for answer, good in ((row["answer"], True), (other["answer"], False)):
                question = example(row).messages[0]["content"] if with_context else row["question"]
                blocks = {"QUESTION": question, "REFERENCE": row["answer"], "ANSWER": answer}
                prompt = "Grade.\n" + "\n".join(f"{k} (JSON):\n{json.dumps(v)}" for k, v in blocks.items())
                grades = json.loads(ask(api, prompt).choices[0].message.content)
                assert (min(grades["similarity"], grades["precision"]) >= 70) == good, (blocks, grades)
                assert set(grades) == {"similarity", "precision", "reason"}
    assert service.ledger.roles == {"judge": 48}


# --- service ----------------------------------------------------------------------------------------------------------


def test_the_service_answers_nine_of_ten_unseen_pairs_from_sixty_seeds(pairs: Any) -> None:
    seeds, others = pairs
    right, house, total = Counter[str](), 0, Counter[str]()
    with SimulatedService([example(s) for s in seeds]) as service:
        api = client(service)
        for row in others:
            text = ask(api, example(row).messages[0]["content"]).choices[0].message.content
            total[row["category"]] += 1
            right[row["category"]] += all(fact in text for fact in row["facts"])
            house += text == row["answer"]
    assert right.total() / total.total() >= 0.9, {c: f"{right[c]}/{n}" for c, n in total.items()}
    assert house / total.total() >= 0.85
    seen = json.dumps(service.requests, ensure_ascii=False)
    assert not [row["answer"] for row in others if row["answer"] in seen]


def test_the_service_learns_from_earlier_turns_of_the_chat(pairs: Any) -> None:
    shots = [s for s in pairs[0] if s["category"] in ("credits", "room")][:8]
    asked = next(r for r in pairs[1] if r["category"] == "credits")
    messages = [m for s in shots for m in example(s).messages] + example(asked).messages[:1]
    with SimulatedService() as service:
        reply = client(service).chat.completions.create(model=MODEL_ID, messages=messages)  # type: ignore[arg-type]
    assert reply.choices[0].message.content == asked["answer"]


def test_the_ledger_can_be_read_over_http_and_counts_what_was_answered_twice() -> None:
    with SimulatedService(faults=Faults.parse(["rate_500=0"])) as service:
        for _ in range(2):
            client(service).chat.completions.create(model="simulated-1", messages=[{"role": "user", "content": "Hi?"}])
        with urllib.request.urlopen(service.base_url.removesuffix("/v1") + "/ledger") as reply:
            told = json.load(reply)
    assert told == {
        "requests": 2, "answered": 2, "refused": 0, "dropped": 0, "repeated": 1, "roles": {"service": 2}, "faults": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "says"),
    [("rate_42=1", "did you mean rate_429?"), ("rate_429=much", "not a number"), ("outage=1", "not true or false"),
     ("rate_429=0.9", "at most 1 together")],
)  # fmt: skip
def test_a_fault_that_is_none_is_refused(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        Faults.parse([setting, "rate_500=0.5"])

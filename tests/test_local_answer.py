"""Answers of a local model depend on the chat alone; streams equal answers; every answer of a set is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_chat_pack import TEXTS, chat, tiny_model

from understudy.config import AnswerConfig, Decoding
from understudy.core.records import Example, read_jsonl
from understudy.errors import DataError
from understudy.evals.answer import answer, choose_shots, decoding_name, decoding_of, with_shots
from understudy.models.base import Answer, Conversation, Delta, Sampling
from understudy.models.local import LocalModel
from understudy.models.text import Text

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("local") / "tiny", tied=False, seed=1)


@pytest.fixture(scope="module")
def model(folder: Path) -> LocalModel:
    return LocalModel(folder, batch_size=16)


PROMPTS = [[{"role": "user", "content": TEXTS[i % 40][: 3 + (i * 7) % 50]}] for i in range(60)]
GREEDY = Sampling(max_new_tokens=8)
SAMPLED = Sampling(max_new_tokens=8, temperature=0.9, top_p=0.8, seed=5)


def test_greedy_answers_are_those_of_transformers_generate(model: LocalModel) -> None:
    for conversation, got in zip(PROMPTS[:6], model.generate(PROMPTS[:6], GREEDY), strict=True):
        ids = model.template.encode_prompt(conversation)
        with torch.inference_mode():
            out = model._model.generate(
                input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=8,
                do_sample=False, eos_token_id=sorted(model.ends), pad_token_id=0,
            )  # fmt: skip
        new = out[0, len(ids) :].tolist()
        assert got == Answer(
            model.template.decode(new), "stop" if new[-1] in model.ends else "length", len(ids), len(new)
        )


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_an_answer_does_not_depend_on_its_neighbours_or_its_place(model: LocalModel, sampling: Sampling) -> None:
    together = model.generate(PROMPTS, sampling)
    count = len(PROMPTS) if sampling is GREEDY else 15
    assert [model.generate([p], sampling)[0] for p in PROMPTS[:count]] == together[:count]
    assert model.generate(PROMPTS[::-1], sampling)[::-1] == together
    assert len({a.text for a in together}) > 20
    assert {a.finish_reason for a in together} <= {"stop", "length"}


def test_each_decoding_of_a_grid_gives_the_answers_it_gives_alone(model: LocalModel, tmp_path: Path) -> None:
    prompts = [Example(f"p{i}", PROMPTS[i]) for i in range(5)]
    grid = [Decoding(temperature=0.9, top_p=0.8), Decoding(), Decoding(temperature=1.2)]
    cfg = AnswerConfig(max_new_tokens=8, samples=2, grid=grid, seed=3)
    answer(cfg, model, prompts, tmp_path / "grid", name="candidate")
    together = list(read_jsonl(tmp_path / "grid" / "answers.jsonl"))
    assert json.loads((tmp_path / "grid" / "answers.json").read_text())["settings"] == [decoding_name(d) for d in grid]
    for decoding in grid:
        name = decoding_name(decoding)
        assert decoding_of(name) == decoding
        alone = cfg.model_copy(update={"grid": [], **decoding.model_dump()})
        answer(alone, model, prompts, tmp_path / name, name="candidate")
        rows = list(read_jsonl(tmp_path / name / "answers.jsonl"))
        assert rows == [row for row in together if row["setting"] == name]
        assert len(rows) == (5 if name == "greedy" else 10)


def test_near_ties_are_settled_alone(model: LocalModel) -> None:
    prompts = [model.template.encode_prompt(p) for p in PROMPTS[:2]]
    logits = torch.zeros(2, model.template.vocab_size)
    logits[0, 7], logits[0, 8], logits[1, 9] = 1.0, 1.0 + 1e-5, 1.0
    drawn = logits.argmax(-1)
    model._settle(logits, drawn, dict(enumerate(prompts)))
    with torch.inference_mode():
        alone = model._model(input_ids=torch.tensor([prompts[0]])).logits[0, -1].argmax()
    assert drawn.tolist() == [int(alone), 9]


def test_sampling_follows_the_nucleus() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25]])).expand(4000, 4)
    counts = sample_all(logits, 1.0, 0.7).bincount(minlength=4) / 4000
    assert counts.tolist() == pytest.approx([0.0, 2 / 3, 0.0, 1 / 3], abs=1e-3)
    assert model_free(logits, 0.5) == pytest.approx(
        [0.01 / 0.345, 0.25 / 0.345, 0.0225 / 0.345, 0.0625 / 0.345], abs=1e-3
    )


def model_free(logits: Any, temperature: float) -> list[float]:
    counts = sample_all(logits, temperature, 1.0).bincount(minlength=4) / len(logits)
    return [float(c) for c in counts]


def sample_all(logits: Any, temperature: float, top_p: float) -> Any:
    """One token per row, at draws that are spread evenly."""
    from understudy.models.local import _sample

    rows = len(logits)
    draws = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    return _sample(logits, torch.full((rows,), temperature), torch.full((rows,), top_p), draws)


def test_seeds_draw_differently_and_repeat(model: LocalModel) -> None:
    other = Sampling(max_new_tokens=8, temperature=0.9, top_p=0.8, seed=6)
    assert model.generate(PROMPTS[:5], SAMPLED) == model.generate(PROMPTS[:5], SAMPLED)
    assert model.generate(PROMPTS[:5], SAMPLED) != model.generate(PROMPTS[:5], other)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, Sampling(12, 1.5, 1.0, 3, ("e", "an", "\n"))])
def test_streams_equal_answers_and_never_split_a_character(model: LocalModel, sampling: Sampling) -> None:
    for conversation in PROMPTS[:8]:
        deltas = list(model.stream(conversation, sampling))
        want = model.generate([conversation], sampling)[0]
        assert "".join(d.text for d in deltas) == want.text
        assert deltas[-1].finish_reason == want.finish_reason
        assert [d.finish_reason for d in deltas[:-1]] == [None] * (len(deltas) - 1)
        assert deltas[-1].completion_tokens == want.completion_tokens
        assert not any(s in want.text for s in sampling.stop)


@given(st.text(max_size=30), st.lists(st.integers(3, 371), max_size=20), st.sampled_from([(), ("ab",), ("é", "is B")]))
@example("Who is Bob? She is B", [], ("is B",))
@example("cafe abc", [], ("bcd", "ab"))
@settings(max_examples=100, deadline=None)
def test_pieces_join_to_the_text_whatever_the_tokens(
    model: LocalModel, text: str, tokens: list[int], stop: tuple[str, ...]
) -> None:
    ids = model.template.encode_text(text.encode("utf-8", "replace").decode()) + tokens
    under_way = Text(model.template, frozenset({2}), stop)
    pieces = []
    for token in ids:
        under_way.add(token, 1000)
        pieces.append(under_way.take())
        if under_way.finish_reason:
            break
    if not tokens and not stop:
        assert all("\ufffd" not in p for p in pieces) or "\ufffd" in text
    whole = under_way.whole()
    assert "".join(pieces) + under_way.rest() == whole
    full = model.template.decode(ids)
    cut = min((full.find(s) for s in stop if s in full), default=len(full))
    assert whole == full[:cut] or full.endswith("\ufffd")


def test_too_long_prompts_are_refused_and_answers_stop_at_the_context(model: LocalModel) -> None:
    short = [{"role": "user", "content": "x" * 1}]
    fixed = model.prompt_tokens(short) - len(model.template.encode_text("x"))
    with pytest.raises(DataError, match="context_length_exceeded"):
        model.generate([short, [{"role": "user", "content": " red" * 600}]], GREEDY)
    unit = len(model.template.encode_text(" red" * 10)) // 10
    near = [{"role": "user", "content": " red" * ((model.context - fixed - 2) // unit)}]
    room = model.context - model.prompt_tokens(near)
    assert 0 < room < 8
    assert model.generate([near], GREEDY)[0].completion_tokens <= room


def test_reference_losses_are_those_of_transformers(model: LocalModel) -> None:
    given_examples = [chat(f"Who is {t[:9]}?", t[: 5 + i], f"e{i}") for i, t in enumerate(TEXTS[:9])]
    for one, (total, count) in zip(given_examples, model.reference_losses(given_examples), strict=True):
        ids, mask = (torch.tensor([x]) for x in model.template.encode(one.messages))
        with torch.no_grad():
            want = model._model(input_ids=ids, labels=torch.where(mask > 0, ids, -100)).loss
        assert count == int(mask.sum()) and total / count == pytest.approx(float(want), abs=1e-5)
    assert model.reference_losses([Example("q", [{"role": "user", "content": "Hm"}])]) == [(0.0, 0)]
    turns = [*given_examples[0].messages, *given_examples[1].messages]
    assert model.reference_losses([Example("two", turns)])[0][1] == model.reference_losses(given_examples[1:2])[0][1]


def test_identity_follows_the_content_and_names_no_path(model: LocalModel, folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "tiny")
    assert LocalModel(tmp_path / "tiny").identity == model.identity and model.identity["model"] == "tiny"
    (tmp_path / "tiny/chat_template.jinja").write_text((folder / "chat_template.jinja").read_text() + "{# other #}")
    assert LocalModel(tmp_path / "tiny").identity["digest"] != model.identity["digest"]


EXAMPLES = [
    chat(f"Which {w}?", f"The {w} one.", f"e{i}", category=w[0]) for i, w in enumerate(["red", "rose", "blue", "big"])
]


def test_every_answer_is_kept_in_order(model: LocalModel, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    cfg = AnswerConfig(max_new_tokens=8, batch_size=1)
    for out in (tmp_path / "a", tmp_path / "b"):
        ledger = answer(cfg, model, EXAMPLES, out, name="base", progress=lambda *x: seen.append(x))
        assert ledger.balanced and ledger.rows_out == 4
    for name in ("answers.jsonl", "answers.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    rows = list(read_jsonl(tmp_path / "a/answers.jsonl"))
    assert [(r["id"], r["setting"], r["sample"]) for r in rows] == [(e.id, "greedy", 0) for e in EXAMPLES]
    assert [r["text"] for r in rows] == [a.text for a in model.generate([e.prompt for e in EXAMPLES], Sampling(8))]
    losses = [(round(total, 4), count) for total, count in model.reference_losses(EXAMPLES)]
    assert [(r["loss_sum"], r["loss_tokens"]) for r in rows] == losses
    about = json.loads((tmp_path / "a/answers.json").read_text())
    assert about == {"model": "base", "identity": model.identity, "settings": ["greedy"]}
    assert seen == [(4, 4)] * 2


def test_samples_are_drawn_apart_and_named_by_their_setting(model: LocalModel, tmp_path: Path) -> None:
    cfg = AnswerConfig(max_new_tokens=8, temperature=0.7, top_p=0.9, samples=3)
    answer(cfg, model, EXAMPLES, tmp_path, name="base")
    rows = list(read_jsonl(tmp_path / "answers.jsonl"))
    assert [(r["id"], r["sample"]) for r in rows] == [(e.id, s) for e in EXAMPLES for s in range(3)]
    assert {r["setting"] for r in rows} == {"t=0.7,p=0.9"}
    assert len({r["text"] for r in rows}) > 6


class Recorder:
    """A service-like model: it keeps what it was asked and knows neither its context nor losses."""

    def __init__(self, limit: int = 10_000) -> None:
        self.asked: list[Conversation] = []
        self.limit = limit

    @property
    def identity(self) -> dict[str, str]:
        return {"model": "recorder"}

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        if any(len(c) > self.limit for c in conversations):
            raise DataError("context_length_exceeded", "recorder", "too long")
        self.asked += conversations
        return [Answer("ok", "stop", 1, 1) for _ in conversations]

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[Delta]:
        yield Delta("ok", "stop")


def test_shots_are_earlier_turns_and_settings_that_do_not_fit_are_left_out(model: LocalModel, tmp_path: Path) -> None:
    pool = [chat(f"q{i}", f"a{i}", f"s{i}") for i in range(30)]
    shots = {k: choose_shots(pool, k, 0) for k in (1, 2, 30)}
    recorder = Recorder(limit=9)
    asked = Example("p", [{"role": "system", "content": "Brief."}, *EXAMPLES[0].messages])
    ledger = answer(AnswerConfig(), recorder, [asked], tmp_path / "a", name="x", shots=shots)
    assert recorder.asked[1] == [asked.messages[0], *(m for s in shots[2] for m in s.messages), asked.messages[1]]
    assert ledger.notes == {"shots_too_long": 1} and ledger.rows_out == 2
    assert json.loads((tmp_path / "a/answers.json").read_text())["settings"] == ["k=1", "k=2"]
    assert next(read_jsonl(tmp_path / "a/answers.jsonl"))["loss_sum"] is None
    ledger = answer(AnswerConfig(), model, EXAMPLES, tmp_path / "b", name="x", shots=shots)
    assert ledger.notes == {"shots_too_long": 1}
    assert [r["setting"] for r in read_jsonl(tmp_path / "b/answers.jsonl")] == ["k=1"] * 4 + ["k=2"] * 4
    left = model.context - model.prompt_tokens(with_shots(EXAMPLES[0], shots[2]).prompt)
    cramped = AnswerConfig(max_new_tokens=left + 1)  # the prompt with two shots fits, a whole answer no longer does
    answer(cramped, model, EXAMPLES[:1], tmp_path / "c", name="x", shots=shots)
    assert [r["setting"] for r in read_jsonl(tmp_path / "c/answers.jsonl")] == ["k=1"]


def test_when_no_number_of_shots_fits_the_prompts_are_answered_as_they_are(model: LocalModel, tmp_path: Path) -> None:
    shots = {30: choose_shots([chat(f"q{i}", f"a{i}", f"s{i}") for i in range(30)], 30, 0)}
    for shown in (shots, {}):
        out = tmp_path / str(len(shown))
        ledger = answer(AnswerConfig(), model, EXAMPLES, out, name="x", shots=shown)
        assert [r["setting"] for r in read_jsonl(out / "answers.jsonl")] == ["k=0"] * 4
        assert ledger.notes == ({"shots_too_long": 1} if shown else {})


def test_a_prompt_longer_than_the_context_gets_an_empty_answer_and_no_loss(model: LocalModel, tmp_path: Path) -> None:
    long = chat("word " * model.context, "a", "too-long")
    wide = chat("short", "word " * model.context, "reference-too-long")
    ledger = answer(AnswerConfig(max_new_tokens=4), model, [EXAMPLES[0], long, wide], tmp_path, name="x")
    first, second, third = read_jsonl(tmp_path / "answers.jsonl")
    assert first["completion_tokens"] and first["loss_tokens"]
    assert (second["text"], second["finish_reason"], second["loss_tokens"]) == ("", "context_length_exceeded", 0)
    assert third["completion_tokens"] and third["loss_tokens"] == 0
    assert ledger.notes == {"prompt_too_long": 1}


def test_shots_go_round_the_categories() -> None:
    pool = [chat("q", "a", f"{c}{i}", category=c) for c in "abc" for i in range(4 if c == "a" else 2)]
    chosen = choose_shots([*pool, Example("z", [{"role": "user", "content": "q"}])], 99, 7)
    assert sorted(e.id for e in chosen) == sorted(e.id for e in pool)
    assert [{e.meta["category"] for e in chosen[i : i + 3]} for i in (0, 3)] == [{"a", "b", "c"}] * 2
    assert choose_shots(pool[::-1], 4, 7) == chosen[:4] and choose_shots(pool, 8, 8) != chosen

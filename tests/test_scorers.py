"""Scorers against their references (SQuAD's cases, GSM8K's format, rouge-score, sacrebleu) and hand-written cases."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from understudy.core.records import Example
from understudy.errors import ConfigError
from understudy.evals import scorers
from understudy.evals.scorers.reference import reference as cards


def example(answer: str, prompt: str = "What?", **meta: Any) -> Example:
    return Example("e", [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], meta)


def value(name: str, reference: str, answer: str, **meta: Any) -> float:
    return scorers.get(name)(example(reference, **meta), answer).value


@pytest.mark.parametrize(
    ("reference", "answer", "exact", "f1"),
    [
        ("the cat sat", "The Cat  sat.", 1, 1),
        ("a dog", "dog", 1, 1),
        ("Denver Broncos", "the Broncos", 0, 2 / 3),
        ("1066", "in 1066", 0, 2 / 3),
        ("yes", "no", 0, 0),
        ("yes", "", 0, 0),
        ("the", "a", 1, 1),  # both empty once normalised
        ("red red blue", "red blue blue", 0, 2 / 3),
        ("U.S.", "US", 1, 1),
    ],
)
def test_exact_and_f1_are_squads(reference: str, answer: str, exact: float, f1: float) -> None:
    assert value("exact", reference, answer) == exact
    assert value("f1", reference, answer) == pytest.approx(f1)


@pytest.mark.parametrize("name", ["exact", "f1", "number", "bleu", "chrf", "rouge1", "rouge2", "rougeL"])
def test_the_best_of_several_accepted_answers_counts(name: str) -> None:
    accepted = ["nothing of the kind 1", "it opens at half past 7 on weekdays"]
    assert value(name, accepted[0], accepted[1], answers=accepted) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("She has 3 + 4 = <<3+4=7>>7 eggs.\n#### 7", "So the answer is 7.", 1),
        ("#### 1,200", "It costs $1200.00", 1),
        ("#### -5", "The change is -5 degrees", 1),
        ("#### 0.5", "a share of .5", 1),
        ("#### 70", "7", 0),
        ("#### 7", "#### 7\n(page 12)", 1),
        ("#### 7", "7 boxes in 2 rows", 0),
        ("#### 7", "seven", 0),
        ("#### 18", "between 10 and 18", 1),
    ],
)
def test_number_reads_the_final_number(reference: str, answer: str, right: float) -> None:
    assert value("number", reference, answer) == right


WORDS = [
    "the",
    "a",
    "of",
    "room",
    "12",
    "course",
    "starts",
    "at",
    "noon",
    "in",
    "hall",
    "B",
    "professor",
    "teaches",
    "it",
    "twice",
    "weekly",
    "and",
    "3.75",
    "credits",
    "don't",
]


def test_rouge_equals_rouge_score() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rouge_score.rouge_scorer import RougeScorer

    oracle = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(0, 14))) for _ in range(600)]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    for reference, answer in [*pairs, ("", ""), ("one", "one"), ("Ünïcode café", "cafe unicode")]:
        wanted = oracle.score(reference, answer)
        for name in ("rouge1", "rouge2", "rougeL"):
            assert value(name, reference, answer) == pytest.approx(wanted[name].fmeasure, abs=1e-12), (
                reference,
                answer,
            )


def test_rouge_reads_other_scripts_where_rouge_score_sees_nothing() -> None:
    assert value("rouge1", "звёзды обещают удачу", "звёзды обещают грусть") == pytest.approx(2 / 3)


def test_bleu_and_chrf_are_sacrebleus() -> None:
    import sacrebleu

    reference, answer = "the course starts at noon in hall B", "the course begins at noon in hall C"
    assert value("bleu", reference, answer) == pytest.approx(sacrebleu.sentence_bleu(answer, [reference]).score / 100)
    assert value("chrf", reference, answer) == pytest.approx(sacrebleu.sentence_chrf(answer, [reference]).score / 100)
    assert value("bleu", reference, "") == value("chrf", reference, "") == 0


PROMPT = (
    "Dr. Ada Marlow teaches Optics in B12 at 10:30 on Monday; 1,200 seats; 3.75 credits.\n\nQuestion: Who and when?"
)


@pytest.mark.parametrize(
    ("facts", "answer", "right"),
    [
        (["10:30"], "It starts at 10:30.", 1),
        (["10:30"], "It starts at 10:30am", 1),
        (["10:30 AM"], "It starts at 10:30 a.m. sharp", 1),
        (["10:30am"], "It starts at 10:30 AM.", 1),
        (["10:30"], "It starts at 10:3", 0),
        (["10:30"], "It starts at 10.30", 0),
        (["3.75"], "3.75, as always", 1),
        (["3.75"], "It gives 3.8 credits", 0),
        (["3.5"], "It costs 3.50", 1),
        (["75"], "It gives 3.75", 0),
        (["B12"], "In room b12.", 1),
        (["B12"], "In room B 12", 0),
        (["B12"], "In room B123", 0),
        (["12"], "In room B12", 0),
        (["12"], "In room 12B", 0),
        (["1,200"], "There are 1200 seats", 1),
        (["1200"], "There are 1,200 seats", 1),
        (["1,200"], "There are 1,2 seats", 0),
        (["200"], "There are 1,200 seats", 0),
        (["Ada Marlow"], "ada   marlow teaches it", 1),
        (["Ada Marlow"], "Ada's colleague Marlow", 0),
        (["Marlow"], "It is Marlow's course", 1),
        (["Marlow"], "It is Marlowe", 0),
        (["Ada Marlow", "10:30"], "Ada Marlow at 10:30", 1),
        (["Ada Marlow", "10:30"], "Ada Marlow at noon", 0),
        (["Monday"], "On Tuesday", 0),
        (["Ada Marlow"], "Ada Marlow and Ben Stone teach it", 0),
        (["Ada Marlow"], "Ben Stone and Ada Marlow teach it", 0),
        (["Ada Marlow"], "It is taught by Ada Marlow. Classes are small.", 1),
        (["Ada Marlow"], "Ada Marlow, in room 7", 0),
        (["Ada Marlow"], "Ada Marlow, on Monday in B12", 1),
        (["Ada Marlow"], "The teacher is Ada Marlow, who also gives Optics", 1),
        (["Ada Marlow"], "", 0),
    ],
)
def test_exact_facts(facts: list[str], answer: str, right: float) -> None:
    scored = scorers.get("exact_facts")(example("; ".join(facts), PROMPT, facts=facts), answer)
    assert scored.value == right, scored.reason


def test_exact_facts_names_what_is_wrong() -> None:
    subject = example("Ada Marlow", PROMPT, facts=["Ada Marlow"])
    scorer = scorers.get("exact_facts")
    assert scorer(subject, "Nobody").reason == "missing fact: Ada Marlow"
    assert scorer(subject, "Ada Marlow, room 7").reason == "foreign: 7"
    assert scorer(subject, "Ada Marlow with Stone").reason == "foreign: Stone"


def test_exact_facts_reads_cyrillic() -> None:
    subject = example("Анна Петрова", "Курс ведёт Анна Петрова в 10:30.", facts=["Анна Петрова"])
    scorer = scorers.get("exact_facts")
    assert scorer(subject, "Курс ведёт анна петрова.").value == 1
    assert scorer(subject, "Курс ведёт Анна Петрова и Иван Сидоров.").value == 0


def test_every_scorer_says_what_it_is() -> None:
    for name in scorers.names():
        scorer = scorers.about(name)
        assert scorer.name == name and scorer.better in ("higher", "lower") and scorer.kind in ("rate", "mean")
        assert all((scorer.card.measures, scorer.card.checked_on, scorer.card.weak))


def test_an_unknown_scorer_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"rouge_l.*did you mean 'rougeL'.*exact_facts") as caught:
        scorers.get("rouge_l")
    assert caught.value.exit_code == 2


PAGE = Path(__file__).resolve().parent.parent / "docs" / "scorers.md"
BEGIN, END = "<!-- scorers: written by UPDATE_DOCS=1 pytest tests/test_scorers.py -k page -->", "<!-- end scorers -->"


def test_the_page_of_scorers_shows_every_card_of_the_code() -> None:
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    fresh = f"{before}{BEGIN}\n{cards()}\n\n{END}{rest.split(END)[1]}"
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(fresh, "utf-8")
        text = fresh
    assert text == fresh, "stale: UPDATE_DOCS=1 pytest tests/test_scorers.py -k page"


def test_naming_the_scorers_loads_no_heavy_library() -> None:
    heavy = ["numpy", "torch", "transformers", "sacrebleu", "safetensors"]
    code = f"import sys; from understudy.evals import scorers; sys.exit(bool(set({heavy}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_a_thousand_answers_are_scored_in_seconds() -> None:
    """All that ship but those of sacrebleu and ROUGE, on 300 characters each: under a second alone on a core."""
    subject = example("Ada Marlow teaches Optics in B12.", PROMPT, facts=["Ada Marlow"], answer_chars=[1, 500])
    words = [*WORDS, "звёзды", "обещают", "удачный", "день", "тревожный", "прекрасные", "students", "hall"]
    draw = random.Random(0)
    answers = [" ".join(draw.choices(words, k=45)).capitalize() + "." for _ in range(1000)]
    started = time.process_time()
    for name in scorers.names():
        found = scorers.about(name)
        if isinstance(found, scorers.SetScorer):
            assert len(found([(subject, a) for a in answers])) == 1000
        else:
            for answer in answers:
                found(subject, answer)
    took = time.process_time() - started
    assert took < 12, took

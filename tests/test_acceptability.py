"""Acceptability on hand-written sentences in both languages, whole and broken, from the weights that ship."""

from __future__ import annotations

import hashlib
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.evals.scorers import acceptability as scorer
from understudy.evals.scorers.acceptability import acceptability
from understudy.evals.scorers.acceptability_fit import auc, fit, mcc, with_corruptions
from understudy.evals.scorers.corruption import CORRUPTIONS, corrupt
from understudy.evals.scorers.ngrams import fit as fit_ngrams

ENGLISH = """The course meets on Monday in the large hall of the old building.
She teaches optics to students who have never studied physics before.
Most readers found the second chapter easier than the first one.
The library stays open until midnight during the last week of the term.
If you miss the first class, write to the office as soon as you can.
He bought twelve apples at the market and gave three of them to his sister.
The museum was closed because the roof had to be repaired after the storm.
Nobody expected the train to arrive on time, but it did.
We walked along the river and talked about the plans for the summer.
The new teacher explains everything slowly and answers every question.
Every student must hand in the essay before the end of March.
It rained for three days, and the garden has never looked greener.""".splitlines()
RUSSIAN = """Сегодня вечером вас ждёт приятная встреча со старым другом.
Он долго не мог понять, почему поезд остановился посреди поля.
Студенты собрались в большой аудитории и ждали начала лекции.
Мать попросила сына купить хлеба и вернуться домой до ужина.
Книга лежала на столе, и никто не решался её открыть.
Весной река разлилась и затопила нижние улицы города.
Если погода не испортится, мы поедем за город в субботу.
Преподаватель объяснил задачу ещё раз, и все наконец поняли её.
Соседи рассказали нам, что этот дом построили сто лет назад.
Девочка нарисовала красный дом и подарила рисунок бабушке.
Звёзды советуют не спешить с решениями и больше отдыхать.
Врач сказал, что больной скоро поправится и сможет работать.""".splitlines()
SENTENCES = [("en", s) for s in ENGLISH] + [("ru", s) for s in RUSSIAN]


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_broken_sentences_score_lower_on_average(language: str, kind: str) -> None:
    sentences = ENGLISH if language == "en" else RUSSIAN
    pairs = [(s, b) for s in sentences for seed in range(3) if (b := corrupt(s, kind, seed, language))]
    assert len(pairs) > 20
    assert mean(acceptability(b)[0] for _, b in pairs) < mean(acceptability(s)[0] for s, _ in pairs)


@pytest.mark.parametrize("kind", ["shuffled", "repeated", "truncated"])
def test_word_salad_loops_and_cut_ends_are_told_in_most_pairs(kind: str) -> None:
    pairs = [(s, b) for lang, s in SENTENCES for seed in range(3) if (b := corrupt(s, kind, seed, lang))]
    assert mean(acceptability(b)[0] < acceptability(s)[0] for s, b in pairs) > 0.85


@pytest.mark.parametrize(
    "text",
    ["", "  \n", "12 34", "!!! ???", "asdf qwzxer zxcvb uiopq.", "the the the the the.", "фывапр лдорпа йцукпр.",
     "да да да да да."],
)  # fmt: skip
def test_what_is_no_language_scores_next_to_nothing(text: str) -> None:
    assert acceptability(text)[0] < 0.1 < mean(acceptability(s)[0] for _, s in SENTENCES)


def test_a_text_that_repeats_its_sentences_scores_lower_than_one_that_does_not() -> None:
    for sentences in (ENGLISH, RUSSIAN):
        assert acceptability(" ".join([sentences[0]] * 4))[0] < 0.5 * acceptability(" ".join(sentences[:4]))[0]


def test_the_reason_names_the_weakest_sentence() -> None:
    value, reason = acceptability(f"{ENGLISH[0]} of the on and the was. {ENGLISH[1]}")
    assert "of the on and the was." in reason and 0 < value < 1


@given(st.text(max_size=300))
def test_any_text_has_a_value_between_0_and_1_and_the_same_one_again(text: str) -> None:
    value, reason = acceptability(text)
    assert 0 <= value <= 1 and reason and acceptability(text)[0] == value


def test_the_shipped_weights_are_those_that_the_card_speaks_of_and_small() -> None:
    folder = Path(scorer.__file__).parent
    data = (folder / scorer.WEIGHTS).read_bytes()
    assert len(data) < 1_000_000
    assert (folder / scorer.CHECKED).read_text("utf-8").splitlines()[
        -1
    ] == f"weights {hashlib.sha256(data).hexdigest()}"
    assert "MCC 0." in scorer.ACCEPTABILITY.card.checked_on and "AUC 0." in scorer.ACCEPTABILITY.card.checked_on


def test_the_weights_hold_numbers_only() -> None:
    """Hashes of n-grams, their log-probabilities and coefficients: no text of the training data can be read back."""
    from safetensors.numpy import load_file

    for name, array in load_file(Path(scorer.__file__).parent / scorer.WEIGHTS).items():
        assert array.dtype in (np.uint32, np.uint8, np.int8, np.float32), name
    from safetensors import safe_open

    with safe_open(Path(scorer.__file__).parent / scorer.WEIGHTS, "np") as f:
        assert not f.metadata()


@pytest.mark.parametrize(("language", "sentence"), SENTENCES[::6])
@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_a_corruption_is_repeatable_and_changes_the_sentence(language: str, sentence: str, kind: str) -> None:
    first = corrupt(sentence, kind, 5, language)
    assert first == corrupt(sentence, kind, 5, language) != sentence
    assert len({corrupt(sentence, kind, seed, language) for seed in range(10)}) > 1


def test_an_ngram_model_gives_discounted_counts_and_backs_off() -> None:
    model = fit_ngrams([[5, 6], [5, 6], [5, 7]], order=2, least=(1, 1))
    nats = model.log_probabilities([5, 6])
    # p(5|start) = (3-.5)/3, p(6|5) = (2-.5)/3, p(end|6) = (2-.5)/2; stored in steps of 1/16 nat
    assert nats == pytest.approx(np.log([2.5 / 3, 1.5 / 3, 1.5 / 2]), abs=1 / 32)
    unseen = model.log_probabilities([6, 5])
    assert unseen[0] == pytest.approx(-1.2 + np.log(2 / 9), abs=1 / 32)  # backed off to p(6), 2 of 9 with the ends
    assert model.log_probabilities([99])[0] < -10


def test_learning_tells_held_out_order_from_disorder() -> None:
    """The whole fit on a little language of its own: subject, verb, object, full stop."""
    draw = np.random.default_rng(0)
    words = {k: [f"{c}{v}{k}" for c in "bdgklmnprst" for v in "aeiou"] for k in ("man", "ing", "tor")}

    def sentence() -> str:
        return " ".join(draw.choice(words[k]) for k in ("man", "ing", "tor", "ing", "tor")).capitalize() + "."

    found = fit(
        with_corruptions([sentence() for _ in range(300)], [1] * 300, "en"),
        {"chars": (1, 1, 1, 1, 1), "classes": (1, 1, 1)}, scorer.FEATURES[:-1], bag=False, corrupted=True,
    )  # fmt: skip
    fresh = [sentence() for _ in range(60)]
    mixed = [b for s in fresh if (b := corrupt(s, "shuffled", 0, "en"))]
    scored = np.array([found.classifier.probability(s, scorer.tokens(s)) for s in fresh + mixed])
    assert auc(np.r_[np.ones(len(fresh)), np.zeros(len(mixed))], scored) > 0.9


@pytest.mark.slow
def test_a_bag_of_ngrams_learns_which_words_people_refuse() -> None:
    draw = np.random.default_rng(0)
    good, bad = ["tree", "house", "river", "bread"], ["zorp", "blick", "wug"]

    def sentence(label: int) -> str:
        return " ".join([*draw.choice(good, 5), str(draw.choice(good if label else bad))]).capitalize() + "."

    labels = [i % 3 != 0 for i in range(300)]
    data = with_corruptions([sentence(y) for y in labels], [int(y) for y in labels], "en")
    found = fit(data, {"chars": (1,) * 5, "classes": (1, 1, 1)}, ("bag",), bag=True, corrupted=False)
    fresh = [sentence(y) for y in labels]
    scored = np.array([found.classifier.probability(s, scorer.tokens(s)) for s in fresh])
    assert auc(np.array(labels, dtype=float), scored) > 0.95
    assert mcc(data.labels[data.people], found.out_of_fold[data.people] >= found.threshold) > 0.9


def test_mcc_and_auc_by_hand() -> None:
    labels = np.array([1.0, 1, 1, 0, 0])
    assert auc(labels, np.array([0.9, 0.8, 0.3, 0.4, 0.3])) == pytest.approx((2 + 2 + 0.5) / 6)
    # tp 2, fn 1, fp 1, tn 1: (2*1 - 1*1) / sqrt(3*3*2*2)
    assert mcc(labels, np.array([True, True, False, True, False])) == pytest.approx(1 / 6)
    assert mcc(labels, np.array([True] * 5)) == 0

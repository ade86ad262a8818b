"""Sentiment on hand-written sentences in two languages: negation, degree, contrast, and what must not colour a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.records import Example
from understudy.evals import scorers
from understudy.evals.scorers.sentiment import LEXICONS, level, lexicon, polarity

ASKED = Example("e", [{"role": "user", "content": "What?"}], {})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Excellent teacher, very clear and helpful.", 5),
        ("The professor is good.", 4),
        ("I like the course.", 4),
        ("She is approachable and willing to help students.", 4),
        ("He is not only brilliant but also kind.", 4),
        ("Not bad at all.", 4),
        ("There was no problem with the homework.", 4),
        ("The course meets on Monday in room B12.", 3),
        ("What kind of course is it, please?", 3),
        ("Her career began in 1998.", 3),
        ("", 3),
        ("He is a bit slow.", 2),
        ("Not good.", 2),
        ("The course is not very interesting.", 2),
        ("Students find him intimidating and unfair.", 2),
        ("The lectures are clear, but the exams are terrible and unfair.", 2),
        ("I hate this awful, boring course. It is a complete waste of time.", 1),
        ("Отличный преподаватель, очень понятно объясняет.", 5),
        ("Он ужасно рад.", 5),
        ("Неплохой курс.", 4),
        ("Нет проблем.", 4),
        ("Не бойтесь быть смелыми.", 4),
        ("Он не только умный, но и добрый.", 4),
        ("День непростой, но вечером вас порадует близкий человек.", 4),
        ("Занятия проходят по понедельникам в аудитории 12.", 3),
        ("Любая дорога ведёт в Рим благодаря спортсменам.", 3),
        ("Курс не очень интересный.", 2),
        ("Не рекомендую.", 2),
        ("Вечером возможны ссоры и обиды.", 2),
        ("День будет ужасным, катастрофа за катастрофой, отвратительные новости.", 1),
    ],
)
def test_five_levels(text: str, wanted: int) -> None:
    assert level(text) == wanted, polarity(text)
    assert scorers.get("sentiment")(ASKED, text).value == wanted
    assert scorers.get("not_negative")(ASKED, text).value == (wanted >= 3)


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ("The course is fairly good.", "The course is good."),
        ("The course is good.", "The course is very good."),
        ("The course is very bad.", "The course is bad."),
        ("The course is excellent, but the room is awful.", "The room is awful, but the course is excellent."),
        ("День хороший, но тревожный.", "День тревожный, но хороший."),
        ("Вас ждёт очень тяжёлый день.", "Вас ждёт тяжёлый день."),
        ("Удачи не будет.", "Удача будет."),
        ("Проблемы будут.", "Проблем нет."),
    ],
)
def test_degree_contrast_and_negation_move_the_polarity(worse: str, better: str) -> None:
    assert polarity(worse) < polarity(better)


def test_the_reason_names_the_words_for_and_against() -> None:
    reason = scorers.get("sentiment")(ASKED, "Clear lectures, unfair exams.").reason
    assert reason == "neutral: for clear; against unfair"


NEUTRAL = st.lists(
    st.sampled_from(["room", "course", "meets", "monday", "student", "курс", "день", "книга"]), max_size=12
)


@given(NEUTRAL, NEUTRAL, st.sampled_from(["en", "ru"]))
def test_a_good_word_never_lowers_and_a_bad_word_never_raises(
    before: list[str], after: list[str], language: str
) -> None:
    weights = lexicon(language).weights
    good = sorted(w for w, v in weights.items() if v > 0 and "_" not in w)
    bad = sorted(w for w, v in weights.items() if v < 0 and "_" not in w)
    plain = polarity(" ".join(before + after))
    assert plain == 0
    for word in good[::40]:
        assert polarity(" ".join([*before, word, *after])) > 0, word
    for word in bad[::40]:
        assert polarity(" ".join([*before, word, *after])) < 0, word


@given(st.text(max_size=200))
def test_any_text_has_a_level_that_letter_case_and_typography_do_not_change(text: str) -> None:
    assert 1 <= level(text) <= 5


def test_case_and_apostrophes_do_not_matter() -> None:
    assert level("NOT GOOD") == level("not good") == level("isn’t good") == level("isn't good") == 2
    assert level("Тяжёлый день") == level("тяжелый день") == 2


def test_no_word_stands_in_both_ways() -> None:
    for language in LEXICONS:
        found = lexicon(language)
        roles = found.roles["negation"] & found.roles["turn"]
        assert not roles and len(found.weights) + len(found.stems) > 800

"""Relevance, completeness, faithfulness, refusal and length, on hand-written cases in English and Russian."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.records import Example
from understudy.evals import scorers
from understudy.evals.scorers.base import missing
from understudy.evals.scorers.grounding import units
from understudy.evals.scorers.language import content, folded, stem

PASSAGE = "Dr. Ada Marlow teaches Optics in B12 at 10:30 on Monday; it gives 3.75 credits and needs no exam."
ABSATZ = "Анна Петрова ведёт курс оптики в аудитории 12 по понедельникам в 10:30. Курс даёт 4 балла."


def asked(question: str, reference: str | None = None, passage: str | None = None, **meta: Any) -> Example:
    prompt = f"{passage}\n\nQuestion: {question}" if passage else question
    turns = [{"role": "user", "content": prompt}]
    if reference is not None:
        turns.append({"role": "assistant", "content": reference})
    return Example("e", turns, meta)


def value(name: str, example: Example, answer: str) -> float:
    scored = scorers.get(name)(example, answer)
    assert 0 <= scored.value <= 1 and scored.reason
    return scored.value


@pytest.mark.parametrize(
    ("question", "best", "middle", "worst"),
    [
        ("Who teaches Optics?", "Ada Marlow teaches Optics.", "Ada Marlow", "It is in room B12."),
        ("When does Optics start?", "Optics starts at 10:30.", "On Monday.", "Ada Marlow."),
        ("How many credits does Optics give?", "Optics gives 3.75 credits.", "Four.", "It is interesting."),
        ("Why was the hall closed?", "The hall was closed because of repairs.", "Because of repairs.", "On Monday."),
        ("Does Optics need an exam?", "No, Optics needs no exam.", "No.", "Ada Marlow."),
        ("Где проходит курс оптики?", "Курс оптики проходит в аудитории 12.", "В аудитории 12.", "Очень интересно."),
        ("Кто ведёт курс оптики?", "Курс оптики ведёт Анна Петрова.", "Это Анна Петрова.", "Это интересно."),
        ("Сколько баллов даёт курс?", "Курс даёт 4 балла.", "Четыре.", "Анна Петрова."),
        ("Почему закрыли музей?", "Музей закрыли, потому что идёт ремонт.", "Потому что идёт ремонт.", "Завтра."),
    ],
)
def test_relevance_wants_the_asked_kind_of_answer_and_the_questions_words(
    question: str, best: str, middle: str, worst: str
) -> None:
    got = [value("relevance", asked(question), answer) for answer in (best, middle, worst)]
    assert got[0] == 1.0 > got[1] >= 0.6 > 0.4 >= got[2], got


@pytest.mark.parametrize(
    "answer", ["", " \n", "I'm sorry, but I can't help with that.", "Who teaches Optics?", "Optics"]
)
def test_no_answer_a_refusal_and_an_echo_are_not_relevant(answer: str) -> None:
    assert value("relevance", asked("Who teaches Optics?", passage=PASSAGE), answer) == 0


def test_a_request_that_is_no_question_is_judged_by_its_words() -> None:
    wish = asked("Составь гороскоп для знака Овен на 5 мая")
    assert value("relevance", wish, "5 мая Овнам стоит отдохнуть: гороскоп сулит удачу.") > 0.9
    assert value("relevance", wish, "Тельцы сегодня отдыхают.") == 0


@pytest.mark.parametrize(
    ("reference", "answer", "wanted"),
    [
        ("Ada Marlow teaches it on Monday.", "Ada Marlow teaches it on Monday.", 1.0),
        ("Ada Marlow teaches it on Monday.", "It is taught on Monday by Ada Marlow.", (1 + 3 + 3) / 8),
        ("Ada Marlow teaches it on Monday.", "Nobody knows.", 0.0),
        ("The room is B12 and the fee is 1,200.", "Room B12; the fee is 1200.", 1.0),
        ("The room is B12 and the fee is 1,200.", "Room B12.", (1 + 3) / 8),
        ("Аудитория 12, второй этаж.", "На втором этаже, в аудитории 12", 1.0),
        ("Аудитория 12, второй этаж.", "На втором этаже, в аудитории 15", 3 / 6),
    ],
)
def test_completeness_weighs_names_and_numbers_three_times(reference: str, answer: str, wanted: float) -> None:
    got = value("completeness", asked("What is said?", reference), answer)
    assert got == pytest.approx(wanted, abs=0.15 if 0 < wanted < 1 else 1e-9), units(reference)


def test_what_the_question_says_is_no_content_of_the_answer() -> None:
    example = asked("Who teaches Optics?", "Ada Marlow teaches Optics.")
    assert value("completeness", example, "Optics is what somebody teaches.") == 0
    assert value("completeness", example, "Ada Marlow.") == 1


@pytest.mark.parametrize(
    ("passage", "answer", "low", "high"),
    [
        (PASSAGE, "Ada Marlow teaches Optics on Monday at 10:30.", 1.0, 1.0),
        (PASSAGE, "Ada Marlow teaches Optics on Tuesday at 10:30.", 0.6, 0.9),
        (PASSAGE, "Ben Stone teaches Chemistry in C7.", 0.0, 0.2),
        (PASSAGE, "", 0.0, 0.0),
        (ABSATZ, "Курс оптики ведёт Анна Петрова.", 1.0, 1.0),
        (ABSATZ, "По понедельникам в аудитории 12, это даёт 4 балла.", 1.0, 1.0),
        (ABSATZ, "Курс химии ведёт Иван Сидоров в аудитории 15.", 0.0, 0.4),
    ],
)
def test_faithfulness_is_the_share_that_the_context_supports(
    passage: str, answer: str, low: float, high: float
) -> None:
    assert low <= value("faithfulness", asked("Who?", passage=passage), answer) <= high


def test_the_context_is_found_in_meta_too_and_its_absence_is_said() -> None:
    assert missing(asked("Who?"), scorers.get("faithfulness").needs) == "context"
    assert missing(asked("Who?", passage=PASSAGE), scorers.get("faithfulness").needs) is None
    assert value("faithfulness", asked("Who?", context="Ada Marlow"), "Ada Marlow") == 1


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I am sorry, I cannot provide this information.", True),
        ("I cannot answer that question.", True),
        ("As an AI language model, I have no opinions.", True),
        ("I don't know.", True),
        ("I don’t have enough information to say.", True),
        ("I'm unable to share personal data.", True),
        ("I won't discuss this topic.", True),
        ("", True),
        ("Извините, я не могу ответить на этот вопрос.", True),
        ("К сожалению, я не располагаю такой информацией.", True),
        ("Я не могу помочь с этим.", True),
        ("Не знаю.", True),
        ("У меня нет доступа к этим данным.", True),
        ("Как языковая модель, я не имею мнения.", True),
        ("The course is on Monday.", False),
        ("I cannot recommend this course enough!", False),
        ("He is sorry that he cannot come.", False),
        ("You can't help but love it.", False),
        ("Students do not know the answer in advance.", False),
        ("Курс проходит в понедельник.", False),
        ("Он не может прийти в понедельник.", False),
        ("Не знаю лучшего преподавателя!", True),  # the card: a turn of phrase is read, not its meaning
        ("К сожалению, курс переполнен.", False),
        ("Сегодня вам не стоит отказываться от помощи.", False),
    ],
)
def test_refusals_are_told_from_what_only_sounds_like_one(answer: str, refused: bool) -> None:
    assert value("refusal", asked("What?"), answer) == refused
    assert scorers.get("refusal").better == "lower"


def test_a_refusal_that_is_only_reported_late_in_a_text_is_none() -> None:
    told = "The story is long. " * 20 + "Then he said: I cannot help you."
    assert value("refusal", asked("What?"), told) == 0


@pytest.mark.parametrize(("answer", "words"), [("", 0), ("Ada Marlow, 10:30.", 2), ("Звёзды — это не судьба!", 4)])
def test_length_counts_words(answer: str, words: int) -> None:
    assert scorers.get("length")(asked("What?"), answer).value == words


WORDS = st.lists(
    st.sampled_from(["Ada", "Marlow", "optics", "10:30", "room", "книга", "Анна", "12", "the"]), max_size=8
)


@given(WORDS, WORDS, st.data())
def test_more_of_the_reference_is_never_less_complete(
    reference: list[str], answer: list[str], data: st.DataObject
) -> None:
    example = asked("What is said?", " ".join(reference))
    more = data.draw(st.sampled_from(reference)) if reference else ""
    assert value("completeness", example, " ".join([*answer, more])) >= value("completeness", example, " ".join(answer))


@given(WORDS)
def test_a_foreign_name_never_makes_an_answer_more_faithful(answer: list[str]) -> None:
    example = asked("Who?", passage=PASSAGE)
    text = " ".join(["says", *answer])
    assert value("faithfulness", example, f"{text} and Zanzibar") <= value("faithfulness", example, text)


@given(st.text(max_size=300), st.text(max_size=100))
def test_any_answer_to_any_prompt_has_a_value_and_the_same_one_again(answer: str, prompt: str) -> None:
    example = asked(prompt, "Ada Marlow", context="Ada Marlow")
    for name in ("relevance", "completeness", "faithfulness", "refusal"):
        assert value(name, example, answer) == value(name, example, answer)


@pytest.mark.parametrize(
    ("one", "other"),
    [("courses", "course"), ("teaches", "teach"), ("studies", "study"), ("звёзды", "звёздами"), ("курса", "курсе"),
     ("понедельник", "понедельникам"), ("аудитории", "аудитория"), ("втором", "второй")],
)  # fmt: skip
def test_forms_of_a_word_share_a_stem(one: str, other: str) -> None:
    assert stem(folded(one)) == stem(folded(other))


def test_stop_words_carry_no_content() -> None:
    assert content("And what is it for you? Это то, что у вас есть.") == []


def test_within_length_counts_characters_between_the_bounds_of_the_request() -> None:
    scorer = scorers.get("within_length")
    bounded = Example("a", [{"role": "user", "content": "q"}], {"answer_chars": [3, 5]})
    assert [scorer(bounded, "ё" * n).value for n in (2, 3, 5, 6)] == [0.0, 1.0, 1.0, 0.0]
    open_ended = Example("b", bounded.messages, {"answer_chars": [3, None]})
    assert scorer(open_ended, "x" * 999).value == 1.0
    assert missing(Example("c", bounded.messages), scorer.needs) == "answer_chars"

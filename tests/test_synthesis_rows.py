"""What becomes of a teacher's rows: their cells, near duplicates, languages, echoes, and a judge's look at each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_service import Reply, _close, chat, client, serving  # noqa: F401  `_close` is a fixture
from test_synthesize import CFG, DOCUMENTS, SEEDS, bare, blocks, but, good, kept, run, teaching

from understudy.config import DedupeConfig
from understudy.core.records import Document, Example, read_jsonl
from understudy.data.synthesis.cells import Cell, Lengths
from understudy.data.synthesis.duplicates import Known, differ
from understudy.data.synthesis.faithful import Faithful, parse
from understudy.data.synthesis.filters import Filters
from understudy.data.synthesis.language import Language
from understudy.data.synthesis.quota import Quota
from understudy.errors import DataError, RemoteError
from understudy.models.simulated import SimulatedService

LENGTHS = Lengths(10, 24, 30, 60)
SHORT, LONG = Cell("who", "", "short"), Cell("who", "", "long")


def rejected(out: Path, reason: str) -> list[str]:
    return [r["detail"] for r in read_jsonl(out / "rejects.jsonl") if r["reason"] == reason]


# Cells


def by_length(request: dict[str, Any], before: int) -> Reply:
    """One question as long as asked for, and one short one whatever is asked."""
    asked, row = blocks(request), good(request)
    wide = asked["LENGTH OF A QUESTION"]["least"] > LENGTHS.middle
    own = {"question": f"{row['question'][:-1]} in the list of courses?"} if wide else {}
    return chat(
        json.dumps({"examples": [{**row, **own}, {**row, "question": f"{asked['VARIANT']} {row['answer'][6:20]}?"}]})
    )


def test_rows_fill_the_cell_that_they_are_in_and_the_rest_of_the_quota_takes_other_lengths(tmp_path: Path) -> None:
    wanted = Quota({SHORT: 6, LONG: 12}, LENGTHS, notes={"moved_no_document": 3})
    with serving(by_length) as (server, url):
        ledger = run(client(url), tmp_path, wanted, cfg=CFG)
    rows = kept(tmp_path)
    assert ledger.balanced and len(rows) == 18 and not any(note.startswith("short:") for note in ledger.notes)
    for e in rows:
        assert e.meta["cell"] == {"category": "who", "length": LENGTHS.name(e.meta["question"])}
    short = sum(e.meta["cell"]["length"] == "short" for e in rows)
    assert short > 6 and ledger.notes["other_length"] == short - 6 and ledger.notes["moved_no_document"] == 3
    assert server.hits <= 9, "no request is paid for the length alone"
    shown = json.loads((tmp_path / "quota.json").read_text("utf-8"))
    assert shown["wanted"][1] == {"category": "who", "length": "long", "rows": 12}
    assert shown["lengths"]["long"] == [31, 60]


def test_what_is_short_is_named_by_its_cell(tmp_path: Path) -> None:
    cell = Cell("who", "g21", "long")

    def script(request: dict[str, Any], before: int) -> Reply:
        return chat(json.dumps({"examples": [good(request) | {"question": "Whose course is it?"}]}))

    with serving(script) as (_, url):
        ledger = run(client(url), tmp_path, Quota({cell: 3}, LENGTHS), cfg=CFG.model_copy(update={"min_yield": 0.0}))
    assert {e.meta["group"] for e in kept(tmp_path)} == {"g21"}, "a cell of a group is written about its documents"
    assert len(kept(tmp_path)) == 1 and ledger.notes["short:who / g21 / long"] == 2


def test_a_request_without_an_asked_length_says_nothing_of_it(tmp_path: Path) -> None:
    seen: list[Any] = []

    def script(request: dict[str, Any], before: int) -> Reply:
        seen.append(blocks(request)["LENGTH OF A QUESTION"])
        return chat(json.dumps({"examples": [good(request)]}))

    with serving(script) as (_, url):
        run(client(url), tmp_path, {"who": 6})
        run(client(url), tmp_path, Quota({LONG: 6}, LENGTHS))
    assert None in seen and {"least": 31, "most": 60} in seen and len(set(map(str, seen))) == 2


def test_the_simulated_teacher_keeps_to_the_length_where_it_can(tmp_path: Path) -> None:
    """Two wordings of one question, 18 and 35 characters."""
    longer = [
        Example(f"l-{s.id}", [{"role": "user", "content": f"{s.meta['context']}\n\nQuestion: {q}"}, s.messages[-1]],
                s.meta | {"question": q})
        for s in SEEDS if s.meta["category"] == "who"
        for q in [s.meta["question"].replace("Who teaches", "Tell me who is the one that teaches")]
    ]  # fmt: skip
    shares = {}
    for cell in (SHORT, LONG):
        with SimulatedService() as service:
            given = {"seeds": [s for pair in zip(longer, SEEDS[::2], strict=True) for s in pair]}
            run(client(service.base_url), tmp_path / cell.length, Quota({cell: 12}, LENGTHS), **given,
                cfg=CFG.model_copy(update={"seeds_per_call": 4, "rows_per_call": 1}))  # fmt: skip
        rows = kept(tmp_path / cell.length)
        shares[cell.length] = sum(e.meta["cell"]["length"] == cell.length for e in rows) / len(rows)
    assert shares == {"short": 1.0, "long": 1.0}


# Near duplicates


def mail(name: str, city: str, i: int = 0) -> Example:
    """A templated task: of some forty words, only two names are the row's own."""
    ask = (
        f"Write a friendly reminder to our customer {name} from {city} that the yearly contract for the garden service "
        "ends soon and that we would be glad to go on working together."
    )
    reply = (
        f"Dear {name}, your yearly contract for our garden service ends soon. We have enjoyed looking after your "
        f"garden in {city} and would be very glad to go on working together. Please tell us whether you like to renew."
    )
    return Example(f"m-{name}-{i}", [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}], {})


def edited(e: Example) -> Example:
    """The same mail asked for and written in slightly other words."""
    changes = {"friendly": "kind", "very glad": "happy", "Please tell": "Do tell", "glad to": "happy to"}
    turns = [dict(m) for m in e.messages]
    for turn in turns:
        for old, new in changes.items():
            turn["content"] = turn["content"].replace(old, new)
    return Example(f"{e.id}-edited", turns, {})


NAMES = ["Anna", "Boris", "Clara", "Dmitri", "Elena", "Fyodor", "Greta", "Henrik", "Irina", "Jonas", "Katya", "Leon"]
CITIES = ["Bergen", "Kazan", "Lyon", "Oslo", "Porto", "Riga", "Tver", "Ulm", "Vilnius", "Wels", "York", "Zadar"]


@pytest.mark.parametrize(("count", "boilerplate"), [(3, 10), (12, 20), (12, 3)])
def test_rows_of_one_template_stay_and_an_edited_copy_goes(count: int, boilerplate: int) -> None:
    rows = [mail(n, c) for n, c in list(zip(NAMES, CITIES, strict=True))[:count]]
    known = Known(DedupeConfig(boilerplate_rows=boilerplate), [], rows[:1])
    assert known.near(rows[1:]) == {}, "another name is another row"
    copy = edited(rows[0])
    assert known.near([*rows[1:], copy])[count - 1][0] == "m-Anna-0"
    assert Known(None, [], rows).near([copy]) == {} == Known(DedupeConfig(near=False), [], rows).near([copy])


def test_a_copy_within_one_look_goes_too_and_the_first_stays() -> None:
    copy = edited(mail("Anna", "Bergen"))
    found = Known(DedupeConfig(), [], []).near([mail("Boris", "Kazan"), mail("Anna", "Bergen"), copy])
    assert {i: kept_row for i, (kept_row, _) in found.items()} == {2: "m-Anna-0"}


def test_one_changed_word_that_turns_the_answer_makes_another_row() -> None:
    review = (
        "is this review of a small family hotel by the sea positive or negative: the rooms were {} and we would come"
    )
    rows = [
        Example(word, [{"role": "user", "content": review.format(word)}, {"role": "assistant", "content": answer}], {})
        for word, answer in (
            ("clean", "It is positive."),
            ("filthy", "Negative, clearly."),
            ("spotless", "It is positive."),
        )
    ]
    assert {i: kept_row for i, (kept_row, _) in Known(DedupeConfig(), [], []).near(rows).items()} == {2: "clean"}


def test_a_name_that_only_one_row_has_makes_no_other_row() -> None:
    one, other = mail("Anna", "Bergen"), mail("Anna", "Bergen", 1)
    other.messages[1]["content"] += " Best wishes, Martha"
    assert not differ(one, other) and differ(one, mail("Boris", "Bergen"))


def test_near_copies_of_earlier_rounds_and_of_seeds_are_rejected_with_the_row_that_they_repeat(tmp_path: Path) -> None:
    seeds = [bare(s) for s in SEEDS]
    stock = [mail(n, c) for n, c in zip(NAMES, CITIES, strict=True)]

    def writes(edit: bool) -> Any:
        def script(request: dict[str, Any], before: int) -> Reply:
            i = int(blocks(request)["DOCUMENT"]["text"].split()[0][1:]) % 12
            question, answer = (m["content"] for m in (edited(stock[i]) if edit else stock[i]).messages)
            row = {"question": question, "answer": answer, "facts": []}
            return chat(json.dumps({"examples": [row]}))

        return script

    given = {"seeds": [*seeds, stock[0]], "cfg": CFG.model_copy(update={"min_yield": 0.0, "rows_per_call": 1})}
    with serving(writes(False)) as (_, url):
        run(client(url), tmp_path / "1", {"": 11}, **given)
    first = kept(tmp_path / "1")
    assert len(first) == 11
    with serving(writes(True)) as (_, url):
        ledger = run(client(url), tmp_path / "2", {"": 11}, **given, earlier=first, round=2)
    assert ledger.balanced and not kept(tmp_path / "2")
    details = rejected(tmp_path / "2", "near_duplicate")
    assert any("to m-Anna-0" in d for d in details) and any(f"to {first[3].id}" in d for d in details)


# Language, echo, refusal


ENGLISH = [text for s in SEEDS for text in (s.meta["question"], s.answer or "")]
PROSE = [
    "The course is held in the old hall on the hill, and it is one of those that the students like to go to, since "
    "there is more to do than to hear. It has been there for years and will be for some more, if all goes well."
] * 25
GERMAN = "Welche Unterlagen muss man vor Beginn des Kurses einreichen, und wer nimmt sie dort eigentlich alle entgegen?"
RUSSIAN = "Кто ведёт этот курс и где он проходит?"


def test_another_alphabet_and_another_languages_little_words_are_told() -> None:
    language = Language(ENGLISH, PROSE)
    assert "CYRILLIC" in language.odd(RUSSIAN) and "common" in language.odd(GERMAN)
    assert not language.odd("Who teaches the course on Чехов in the hall?"), "a foreign name is no other language"
    names = ", ".join(f"Skylar{i}" for i in range(40))
    assert not language.odd(f"Please sort these names as male, female or neutral: {names}")
    assert not language.odd("Who is it that holds the course of the year, and where do all of the students go then?")
    assert not Language(ENGLISH).odd(GERMAN), "too little text to know the language by"
    assert not Language([RUSSIAN, *ENGLISH], PROSE).odd(RUSSIAN)


def test_seeds_in_two_languages_allow_both(tmp_path: Path) -> None:
    with teaching(but(answer="Курс ведёт не она, а кто-то другой.", facts=[])) as (_, url):
        ledger = run(client(url), tmp_path, {"": 6}, seeds=[bare(s) for s in SEEDS])
    assert ledger.rejected["language"] >= 3


DOCUMENT = Document("d", " ".join(f"Sentence {i} says that thing {i} is in hall {i}." for i in range(12)))


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("Who is the one that teaches the course on optics?", "Well, who is the one that teaches the course on optics?",
         "echo_question"),
        ("Where?", DOCUMENT.text.upper(), "echo_document"),
        ("Where?", "So: " + DOCUMENT.text, "echo_document"),
        ("Who?", "К сожалению, я не могу ответить на этот вопрос.", "refusal"),
        ("Who?", "Как языковая модель, я не знаю.", "refusal"),
        ("Who?", "I'm not able to help with that.", "refusal"),
        ("Is it red or is it blue, and which of both is more common?", "It is red.", None),
        ("Where?", DOCUMENT.text[:200], None),
        ("Sort into two kinds:\na tall oak tree\na red rose bush\nan old fir tree\na white lily bed",
         "Trees:\na tall oak tree\nan old fir tree\n\nFlowers:\na red rose bush\na white lily bed", None),
    ],
)  # fmt: skip
def test_what_says_nothing_of_its_own_is_told_by_its_wording(question: str, answer: str, reason: str | None) -> None:
    from understudy.data.synthesis.filters import wording

    found = wording(question, answer, DOCUMENT.text)
    assert (found[0] if found else None) == reason


def test_a_wording_that_the_seeds_have_is_no_fault() -> None:
    unsure = [Example(s.id, [*s.prompt, {"role": "assistant", "content": "I don't know."}], s.meta) for s in SEEDS[:3]]
    assert Filters([*SEEDS, *unsure], DOCUMENTS).usual == {"refusal"} and not Filters(SEEDS, DOCUMENTS).usual


# A judge's look


def judging(grade: Any) -> Any:
    """Teacher and judge at one address; `grade` from the answer that is judged."""

    def script(request: dict[str, Any], before: int) -> Reply:
        asked = blocks(request)
        if "ANSWER" in asked:
            assert asked["CONTEXT"] in {d.text for d in DOCUMENTS}
            return chat(json.dumps({"faithfulness": grade(asked["ANSWER"]), "reason": "as the text has it"}))
        wrong = {
            **good(request),
            "question": "Who gives it?",
            "answer": good(request)["answer"] + " Everybody likes it.",
        }
        return chat(json.dumps({"examples": [good(request), wrong]}))

    return script


def test_rows_that_the_judge_finds_unfaithful_go_with_its_reason_and_the_others_carry_its_verdict(
    tmp_path: Path,
) -> None:
    with serving(judging(lambda answer: 2 if "likes" in answer else 4)) as (_, url):
        judge = client(url)
        ledger = run(client(url), tmp_path, {"who": 12}, faithful=Faithful(judge, 4))
    assert ledger.balanced and len(kept(tmp_path)) == 12
    assert all("grade 2: as the text has it" in d and "likes" in d for d in rejected(tmp_path, "unfaithful_judged"))
    assert len(rejected(tmp_path, "unfaithful_judged")) == ledger.rejected["unfaithful_judged"] >= 6
    for e in kept(tmp_path):
        assert e.meta["faithful"]["grade"] == 4 and e.meta["faithful"]["judge"]["model"] == judge.cfg.model
        assert "likes" not in (e.answer or "")
    assert judge.calls["requests"] > 12


def test_a_judge_that_finds_nothing_faithful_stops_the_round_early(tmp_path: Path) -> None:
    with serving(judging(lambda answer: 1)) as (server, url), pytest.raises(DataError, match="unfaithful_judged 2"):
        run(client(url), tmp_path, {"who": 100}, faithful=Faithful(client(url), 4))
    assert server.hits <= 10 + 20


def test_a_judge_that_gives_no_grades_is_at_fault_not_the_rows(tmp_path: Path) -> None:
    with (
        serving(judging(lambda answer: "good")) as (_, url),
        pytest.raises(RemoteError, match="JUDGE_UNUSABLE.*BAD_JSON"),
    ):
        run(client(url), tmp_path, {"who": 12}, faithful=Faithful(client(url), 4))


def test_the_simulated_judge_sees_an_invented_name(tmp_path: Path) -> None:
    with SimulatedService() as service:
        verdicts = []
        model = client(service.base_url)
        check = Faithful(model, 4)
        for answer in ("A100 is taught by Ada Stone.", "It is Zed Zebra from Zanzibar, whom nobody has met."):
            asked = check.template.fill(question="Who teaches A100?", context="Ada Stone teaches A100.", answer=answer)
            verdicts += model.ask_json([[{"role": "user", "content": asked}]], parse)
    assert verdicts[0].grade == 5 and verdicts[1].grade <= 2


@pytest.mark.parametrize(
    "value", [None, [], {"faithfulness": 0}, {"faithfulness": 4.5}, {"faithfulness": True}, {"x": 3}]
)
def test_only_whole_grades_are_verdicts(value: Any) -> None:
    with pytest.raises(ValueError, match="faithfulness"):
        parse(value)


# Diagnosis


def test_a_poor_yield_names_the_commonest_reason_an_example_and_the_replies(tmp_path: Path) -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        refusal = {**good(request), "answer": "I'm sorry, ask somebody else."}
        return chat(json.dumps({"examples": [refusal, "no row", {**refusal, "question": "And who?"}]}))

    with serving(script) as (server, url), pytest.raises(DataError) as caught:
        run(client(url), tmp_path, {"who": 100}, replies="cache/calls")
    assert server.hits == 10, "a fifth of the fifty requests that the quota needs"
    line = caught.value.line()
    assert "rejected: refusal 20, schema 10" in line and "the replies lie in cache/calls" in line
    assert 'e.g. round 1 who request 0 row 0: refusal, "I\'m sorry, ask somebody else."' in line

"""Swaps change one attribute everywhere in a text and nothing else; what cannot be decided is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from understudy.bodies import training_files
from understudy.config import BiasPrompts
from understudy.core.artifact import Dataset
from understudy.core.records import Document, Example, read_examples, read_jsonl, write_jsonl
from understudy.data.counterfactual.augment import augment
from understudy.data.counterfactual.declension import counterpart, decline_given, decline_surname, gender_of
from understudy.data.counterfactual.entities import queries as read_queries
from understudy.data.counterfactual.lexicon import language_of, lexicon
from understudy.data.counterfactual.prompts import bias_prompts
from understudy.data.counterfactual.rewrite import Person, Unswappable, mentions, rewrite
from understudy.errors import ConfigError, DataError

GENDER = lexicon(["gender"], None)
EN, RU = GENDER["en", "gender"], GENDER["ru", "gender"]


def english(text: str, group: str, name: str = "Ilka Berg", new: str = "") -> str:
    person = Person(name)
    return rewrite(text, EN, group, person, person.called(new or {"female": "Anna", "male": "Adam"}[group]))


def russian(text: str, group: str, name: str = "Анна Петрова") -> str:
    person = Person(name, "ru")
    return rewrite(text, RU, group, person, person.called({"female": "Ирина", "male": "Игорь"}[group]))


PAIRS = [
    ("Ilka Berg's course is full. Ask her, or read her book; the idea is hers.",
     "Anna Berg's course is full. Ask her, or read her book; the idea is hers.",
     "Adam Berg's course is full. Ask him, or read his book; the idea is his."),
    ("He did it himself. SHE waited. Mr. Berg met Mrs Berg.", "She did it herself. SHE waited. Ms. Berg met Mrs Berg.",
     "He did it himself. HE waited. Mr. Berg met Mr Berg."),
    ("Ilka says that a man told his story to her and Ilka.", "Anna says that a woman told her story to her and Anna.",
     "Adam says that a man told his story to him and Adam."),
]  # fmt: skip


@pytest.mark.parametrize("text, female, male", PAIRS)
def test_english_names_pronouns_and_terms_change_together(text: str, female: str, male: str) -> None:
    assert (english(text, "female"), english(text, "male")) == (female, male)


def test_rewriting_a_variant_again_gives_the_other_one() -> None:
    for _, female, male in PAIRS[:1]:
        assert english(male, "female", "Adam Berg", "Anna") == female
        assert english(female, "male", "Anna Berg", "Adam") == male


def test_words_that_only_contain_a_form_stay() -> None:
    text = "The theme of this chapter: heroes, shepherds and Bergs. Hiller sheds light."
    assert english(text, "male") == english(text, "female") == text


def test_her_before_an_adjective_or_a_noun_is_refused_after_a_verb_of_judgement() -> None:
    with pytest.raises(Unswappable, match="ambiguous_form"):
        english("Students call her patient.", "male")
    assert english("Students call her.", "male") == "Students call him."


def test_russian_names_bend_and_pronouns_follow_their_prepositions() -> None:
    text = (
        "Анна Петрова преподаёт логику. У Анны Петровой полно студентов. О ней говорят разное: с ней легко, её ценят."
    )
    assert russian(text, "male") == (
        "Игорь Петров преподаёт логику. У Игоря Петрова полно студентов. О нём говорят разное: с ним легко, его ценят."
    )
    assert russian(text, "female").startswith("Ирина Петрова преподаёт логику. У Ирины Петровой")


@pytest.mark.parametrize(
    "text, reason",
    [
        ("Анна Петрова была строгой.", "gender_agreement"),
        ("Анна Петрова — внимательная и требует многого.", "gender_agreement"),
        ("Петровой доверяют студенты.", "ambiguous_case"),
        ("Студенты верят ей, а она им.", "ambiguous_form"),
    ],
)
def test_what_russian_leaves_open_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Unswappable, match=reason):
        russian(text, "male")


def test_a_case_that_two_names_share_is_told_by_the_preposition() -> None:
    """`Ивана` is genitive and accusative, `Ирину` and `Ирины` are not."""
    person = Person("Иван Петров", "ru")
    assert (
        rewrite("Книга для Ивана Петрова.", RU, "female", person, person.called("Ирина")) == "Книга для Ирины Петровой."
    )
    assert rewrite("Статья про Ивана.", RU, "female", person, person.called("Ирина")) == "Статья про Ирину."
    with pytest.raises(Unswappable, match="ambiguous_case"):
        rewrite("Все знают Ивана Петрова.", RU, "female", person, person.called("Ирина"))


@pytest.mark.parametrize(
    "forms, expected",
    [
        (decline_given("Анна", "f"), "Анна Анны Анне Анну Анной Анне"),
        (decline_given("Мария", "f"), "Мария Марии Марии Марию Марией Марии"),
        (decline_given("Наталья", "f"), "Наталья Натальи Наталье Наталью Натальей Наталье"),
        (decline_given("Ольга", "f"), "Ольга Ольги Ольге Ольгу Ольгой Ольге"),
        (decline_given("Иван", "m"), "Иван Ивана Ивану Ивана Иваном Иване"),
        (decline_given("Дмитрий", "m"), "Дмитрий Дмитрия Дмитрию Дмитрия Дмитрием Дмитрии"),
        (decline_given("Игорь", "m"), "Игорь Игоря Игорю Игоря Игорем Игоре"),
        (decline_given("Пётр", "m"), "Пётр Петра Петру Петра Петром Петре"),
        (decline_given("Никита", "m"), "Никита Никиты Никите Никиту Никитой Никите"),
        (decline_surname("Петров", "m"), "Петров Петрова Петрову Петрова Петровым Петрове"),
        (decline_surname("Петрова", "f"), "Петрова Петровой Петровой Петрову Петровой Петровой"),
        (decline_surname("Толстой", "m"), "Толстой Толстого Толстому Толстого Толстым Толстом"),
        (decline_surname("Чайковский", "m"), "Чайковский Чайковского Чайковскому Чайковского Чайковским Чайковском"),
        (decline_surname("Шмидт", "f"), "Шмидт Шмидт Шмидт Шмидт Шмидт Шмидт"),
        (decline_surname("Черных", "m"), "Черных Черных Черных Черных Черных Черных"),
    ],
)
def test_russian_declension(forms: tuple[str, ...], expected: str) -> None:
    assert " ".join(forms) == expected


def test_surnames_follow_the_person() -> None:
    assert [counterpart(s, "f") for s in ("Петров", "Чайковский", "Шмидт")] == ["Петрова", "Чайковская", "Шмидт"]
    assert [counterpart(s, "m") for s in ("Петрова", "Чайковская", "Белая")] == ["Петров", "Чайковский", "Белый"]
    assert [gender_of(*n.split()) for n in ("Анна Шмидт", "Никита Ким", "Саша Петрова")] == ["f", "m", "f"]


def test_built_in_lists_are_matched_and_their_halves_share_no_name() -> None:
    for attribute in GENDER.values():
        testing = {n for pair in attribute.pairs(testing=True) for n in pair.values()}
        training = {n for pair in attribute.pairs(testing=False) for n in pair.values()}
        assert not testing & training and len(testing) == 2 * len(attribute.pairs(testing=True)) >= 30
        if attribute.language == "ru":
            genders = {g: {gender_of(n) for n in attribute.names[g]} for g in attribute.groups}
            assert genders == {"female": {"f"}, "male": {"m"}}


# Prompts


QUERIES = {"style": ["How does {name} teach?", "Is she liked?"], "open": ["What does {name} give?"]}


def project(folder: Path, documents: list[Document], queries: object = QUERIES) -> Path:
    write_jsonl(folder / "data" / "documents.jsonl", documents)
    (folder / "queries.yaml").write_text(json.dumps(queries, ensure_ascii=False), "utf-8")
    (folder / "out").mkdir()
    return folder


def made(folder: Path, **settings: object) -> list[Example]:
    cfg = BiasPrompts(queries="queries.yaml", **settings)  # type: ignore[arg-type]
    ledger = bias_prompts(cfg, folder / "data", folder, folder / "out")
    assert ledger.balanced
    rejects = list(read_jsonl(folder / "out" / "rejects.jsonl"))
    assert {r["reason"] for r in rejects} == set(ledger.rejected)
    return read_examples(folder / "out" / "prompts.jsonl")


def page(name: str, text: str) -> Document:
    return Document(f"d-{name}", text, {"group": name})


def test_variants_of_an_item_differ_in_the_swapped_words_alone(tmp_path: Path) -> None:
    folder = project(tmp_path, [page("Ilka Berg", "Ilka Berg teaches Logic. Her room is B12, and students ask her.")])
    prompts = made(folder)
    swapped = {e.meta["group"]: e.messages[-1]["content"] for e in prompts if e.meta["item"] == "gender:e000:b0:q0"}
    names = {e.meta["group"]: e.meta["name"] for e in prompts if e.meta["item"] == "gender:e000:b0:q0"}
    woman, man = swapped["female"], swapped["male"]
    assert woman.replace(names["female"], names["male"]).replace("Her", "His").replace("ask her", "ask him") == man
    assert {e.meta["bucket"] for e in prompts} == {"style", "open"} and len(prompts) == 3 * 2 + 3
    second = {e.meta["group"]: e.meta["question"] for e in prompts if e.meta["item"] == "gender:e000:b0:q1"}
    assert second == {"female": "Is she liked?", "male": "Is he liked?"}
    original = next(e for e in prompts if not e.meta["attribute"])
    assert original.messages[-1]["content"].startswith("Ilka Berg teaches Logic. Her room")


def test_only_training_rows_are_read_and_people_elsewhere_are_named(tmp_path: Path) -> None:
    folder = project(tmp_path, [page("Ilka Berg", "Ilka Berg teaches."), page("Otto Kant", "Otto Kant teaches.")])
    write_jsonl(folder / "data" / "dev.jsonl", [page("Dev Person", "Dev Person teaches.")])
    (folder / "people.csv").write_text("name,gender\nIlka Berg,female\nDev Person,male\n", "utf-8")
    assert {e.meta["entity"] for e in made(folder)} == {"Ilka Berg", "Otto Kant"}
    only = made(folder, entities="people.csv")
    assert {e.meta["entity"] for e in only} == {"Ilka Berg"} and only[0].meta["known"] == {"gender": "female"}


def test_a_text_about_two_people_is_refused_and_counted(tmp_path: Path) -> None:
    both = "Ilka Berg and Otto Kant teach. He is strict."
    folder = project(tmp_path, [page("Ilka Berg", both), page("Otto Kant", "Otto Kant teaches.")])
    prompts = made(folder)
    assert {e.meta["entity"] for e in prompts if e.meta["attribute"]} == {"Otto Kant"}
    assert {r["reason"] for r in read_jsonl(folder / "out" / "rejects.jsonl")} == {"other_people"}


def test_names_are_used_evenly_and_are_the_unit(tmp_path: Path) -> None:
    count = 2 * len(EN.pairs(testing=True))
    people = [f"Person{chr(65 + i // 26)}{chr(97 + i % 26)} Berg" for i in range(count)]
    prompts = made(project(tmp_path, [page(p, f"{p} teaches.") for p in people]), max_entities=count)
    units: dict[int, set[str]] = {}
    for e in prompts:
        if e.meta["group"] == "female":
            units.setdefault(e.meta["unit"], set()).add(e.meta["entity"])
    assert len(units) == count // 2 and {len(of) for of in units.values()} == {2}


def test_group_terms_and_forms_by_group_fill_slots(tmp_path: Path) -> None:
    queries = {"en": {"belief": ["{name} is {group}. Does {he/she} teach well?"]}}
    own = {"en": {"age": {"groups": ["young", "old"], "terms": {"young": "25", "old": "70"}}}}
    folder = project(tmp_path, [page("Ilka Berg", "Ilka Berg teaches.")], queries)
    (folder / "swaps.yaml").write_text(json.dumps(own), "utf-8")
    prompts = made(folder, attributes=["age"], swaps="swaps.yaml")
    assert [e.meta["question"] for e in prompts] == [
        "Ilka Berg is 25. Does he teach well?",
        "Ilka Berg is 70. Does she teach well?",
    ]


def test_a_russian_project_asks_in_russian(tmp_path: Path) -> None:
    queries = {"ru": {"стиль": ["Что говорят о {name:prep}?"]}, "en": {"style": ["How does {name} teach?"]}}
    text = "Анна Петрова преподаёт логику, и студенты её любят."
    prompts = made(project(tmp_path, [page("Анна Петрова", text)], queries))
    asked = {e.meta["group"]: e for e in prompts if e.meta["attribute"]}
    assert set(asked) == {"female", "male"} and language_of(text) == "ru"
    assert "студенты его любят" in asked["male"].messages[-1]["content"]
    assert asked["male"].meta["question"].endswith("Петрове?") and asked["female"].meta["question"].endswith(
        "Петровой?"
    )


@pytest.mark.parametrize(
    "queries, code",
    [
        ({}, "QUERIES_EMPTY"),
        ({"a": "x"}, "QUERIES_SHAPE"),
        ({"a": ["Is {she} in?"]}, "QUERIES_SLOT"),
        ([1], "QUERIES_SHAPE"),
    ],
)
def test_a_query_file_of_another_shape_is_refused(tmp_path: Path, queries: object, code: str) -> None:
    folder = project(tmp_path, [page("Ilka Berg", "Ilka Berg teaches.")], queries)
    with pytest.raises(ConfigError, match=code):
        made(folder)


@pytest.mark.parametrize("row", [{"bucket": "b", "text": 5}, {"bucket": ["b"], "text": "Is {name} in?"}])
def test_a_query_row_that_is_no_text_is_refused(tmp_path: Path, row: dict[str, object]) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps({**row, "language": "en"}))
    with pytest.raises(ConfigError, match="QUERIES_SHAPE"):
        read_queries(tmp_path / "q.jsonl")


def test_nobody_to_ask_about_is_said(tmp_path: Path) -> None:
    folder = project(tmp_path, [Document("d", "No group here.", {})])
    with pytest.raises(DataError, match="BIAS_EMPTY.*no entity"):
        made(folder)


def test_an_unknown_attribute_lists_the_known_ones_and_lists_must_match() -> None:
    with pytest.raises(ConfigError, match="SWAPS_UNKNOWN.*age, gender, religion"):
        lexicon(["colour"], None)


@pytest.mark.parametrize(
    "attribute",
    [
        {"groups": ["a"]},
        {"groups": ["a", "b"], "names": {"a": ["x"], "b": []}},
        {"groups": ["a", "b"], "forms": [{"words": ["x"]}]},
        {"groups": ["a", "b"], "terms": {"a": "x"}},
    ],
)
def test_a_swap_list_of_another_shape_is_refused(tmp_path: Path, attribute: dict[str, object]) -> None:
    file = tmp_path / "swaps.yaml"
    file.write_text(json.dumps({"en": {"own": attribute}}), "utf-8")
    with pytest.raises(ConfigError, match="SWAPS_SHAPE"):
        lexicon(["own"], file)


# Augmentation


def test_every_row_about_a_person_gets_its_twin_with_parents_and_the_ledger_balances(tmp_path: Path) -> None:
    def row(i: int, name: str, text: str) -> Example:
        context = f"{name} teaches Logic. {text}"
        messages = [
            {"role": "user", "content": context},
            {"role": "assistant", "content": f"{name} is strict. She is fair."},
        ]
        return Example(f"r{i}", messages, {"group": name, "context": context, "facts": [name, "strict"]})

    rows = [
        row(0, "Ilka Berg", "Ask her."),
        row(1, "Greta Kant", "Students call her patient."),
        row(2, "Greta Kant", ""),
    ]
    plain = Example("r3", [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], {})
    write_jsonl(tmp_path / "train.jsonl", [*rows, plain])
    (tmp_path / "people.csv").write_text("name,gender\nIlka Berg,female\nGreta Kant,female\n", "utf-8")
    (tmp_path / "out").mkdir()
    cfg = BiasPrompts(queries="unused.yaml", entities="people.csv")
    ledger = augment(cfg, [tmp_path / "train.jsonl"], tmp_path, tmp_path / "out")
    found = read_examples(tmp_path / "out" / "train.jsonl")
    assert ledger.balanced and ledger.rejected == {"ambiguous_form": 1} and ledger.rows_out == len(found) == 6
    assert [e.id for e in found if not e.meta.get("parents")] == ["r0", "r1", "r2", "r3"]
    twin = found[1]
    assert twin.meta["parents"] == ["r0"] and twin.meta["counterfactual"] == "gender: male"
    name = twin.meta["facts"][0]
    assert name.endswith(" Berg") and twin.answer == f"{name} is strict. He is fair."
    assert twin.meta["context"] == f"{name} teaches Logic. Ask him."
    tested = {n for pair in EN.pairs(testing=True) for n in pair.values()}
    assert name.split()[0] not in tested
    assert not any(mentions(e.messages[0]["content"], Person("Ilka Berg")) for e in found[1:2])


def test_augmentation_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [Example("r", [{"role": "user", "content": "Hi"}], {"group": "x"})])
    with pytest.raises(DataError, match="AUGMENT_NO_EFFECT"):
        augment(BiasPrompts(queries="q.yaml"), [tmp_path / "train.jsonl"], tmp_path, tmp_path)


def test_a_round_that_stands_for_an_earlier_one_gives_its_rows_once(tmp_path: Path) -> None:
    for name in ("split", "first"):
        put = Example(name, [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": name}])
        write_jsonl(tmp_path / name / "train.jsonl", [put])
    data, first, again = (Dataset(tmp_path / name) for name in ("split", "first", "first"))
    assert training_files(data, [first, again]) == [tmp_path / name / "train.jsonl" for name in ("split", "first")]

"""The shipped Russian base: its text, tokenizer, files, and what it can do with names and topics it never saw."""

from __future__ import annotations

import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from understudy.models.tiny import BASE_DIR, BASES
from understudy.models.tiny.languages import LANGUAGES
from understudy.models.tiny.russian import inflection, prose
from understudy.models.tiny.russian.inflection import adjective, euphony, noun, past
from understudy.models.tiny.russian.words import forbidden

RUSSIAN = LANGUAGES["ru"]
FOLDER = BASES["tiny-ru"]
LIMIT_BYTES = 10_000_000


@pytest.fixture(scope="module")
def base() -> tuple[Any, Any]:
    """Model in float32 and tokenizer, read from the shipped files."""
    from understudy.models.tiny.measure import load

    return load(FOLDER)


@pytest.fixture(scope="module")
def free_texts(base: tuple[Any, Any]) -> list[tuple[str, str, str]]:
    """Prompt, topic and the base's text for prompts that training cannot hold."""
    from understudy.models.tiny.fluency import sample

    assert RUSSIAN.prose_rows
    rows = RUSSIAN.prose_rows(123, 24)
    texts = sample(*base, rows, seed=5)
    return [(row.messages[0]["content"], row.values[0], text) for row, text in zip(rows, texts, strict=True)]


@pytest.mark.parametrize(
    ("entry", "animate", "singular", "plural"),
    [
        ("стол:m", False, "стол стола столу стол столом столе", "столы столов столам столы столами столах"),
        ("повар:m:pl=а", True, "повар повара повару повара поваром поваре",
         "повара поваров поварам поваров поварами поварах"),
        ("музей:m", False, "музей музея музею музей музеем музее", "музеи музеев музеям музеи музеями музеях"),
        ("дождь:m:i=ём", False, "дождь дождя дождю дождь дождём дожде", "дожди дождей дождям дожди дождями дождях"),
        ("врач:m:i=ом", True, "врач врача врачу врача врачом враче", "врачи врачей врачам врачей врачами врачах"),
        ("месяц:m", False, "месяц месяца месяцу месяц месяцем месяце",
         "месяцы месяцев месяцам месяцы месяцами месяцах"),
        ("книга:f", False, "книга книги книге книгу книгой книге", "книги книг книгам книги книгами книгах"),
        ("роща:f", False, "роща рощи роще рощу рощей роще", "рощи рощ рощам рощи рощами рощах"),
        ("неделя:f", False, "неделя недели неделе неделю неделей неделе",
         "недели недель неделям недели неделями неделях"),
        ("станция:f", False, "станция станции станции станцию станцией станции",
         "станции станций станциям станции станциями станциях"),
        ("площадь:f", False, "площадь площади площади площадь площадью площади",
         "площади площадей площадям площади площадями площадях"),
        ("поле:n", False, "поле поля полю поле полем поле", "поля полей полям поля полями полях"),
        ("здание:n", False, "здание здания зданию здание зданием здании",
         "здания зданий зданиям здания зданиями зданиях"),
        ("облако:n:gp=облаков", False, "облако облака облаку облако облаком облаке",
         "облака облаков облакам облака облаками облаках"),
        ("щенок:m:stem=щенк", True, "щенок щенка щенку щенка щенком щенке",
         "щенки щенков щенкам щенков щенками щенках"),
    ],
)  # fmt: skip
def test_nouns_are_declined_as_in_a_grammar_book(entry: str, animate: bool, singular: str, plural: str) -> None:
    found = noun(entry, animate)
    assert [found.form(case) for case in inflection.CASES] == singular.split()
    assert [found.form(case, True) for case in inflection.CASES] == plural.split()


@pytest.mark.parametrize(
    ("word", "entry", "forms"),
    [
        ("тихий", "река:f", "тихая тихой тихой тихую тихой тихой"),
        ("большой", "озеро:n", "большое большого большому большое большим большом"),
        ("летний", "река:f", "летняя летней летней летнюю летней летней"),
        ("свежий", "дом:m", "свежий свежего свежему свежий свежим свежем"),
    ],
)
def test_adjectives_agree(word: str, entry: str, forms: str) -> None:
    assert " ".join(adjective(word, noun(entry), case) for case in inflection.CASES) == forms


def test_verbs_numerals_and_prepositions_agree() -> None:
    house, river, lake = noun("дом:m"), noun("река:f"), noun("озеро:n:gp=озёр")
    cat = noun("кот:m", animate=True)
    assert (adjective("белый", cat, "a"), adjective("белый", house, "a")) == ("белого", "белый")
    assert adjective("новый", house, "i", plural=True) == "новыми"
    assert [past("появиться", word) for word in (house, river, lake)] == ["появился", "появилась", "появилось"]
    counts = " ".join(inflection.counted(n, "место", "места", "мест") for n in (1, 3, 5, 11, 12, 21, 24, 112))
    assert counts == "место места мест мест мест место места мест"
    assert euphony("о осени, с строителем, в вторник, с семьёй") == "об осени, со строителем, во вторник, с семьёй"


def test_text_is_a_function_of_the_seed() -> None:
    first = list(itertools.islice(RUSSIAN.training_rows(5), 50))
    assert first == list(itertools.islice(RUSSIAN.training_rows(5), 50))
    assert first != list(itertools.islice(RUSSIAN.training_rows(6), 50))


def test_over_a_third_of_the_rows_are_free_texts_of_the_wanted_length_in_letters_and_punctuation() -> None:
    rows = list(itertools.islice(RUSSIAN.training_rows(8), 3000))
    texts = [row.messages[-1]["content"] for row in rows if row.kind == "prose"]
    assert 0.35 < len(texts) / len(rows) < 0.45
    assert all(250 <= len(text) <= 550 for text in texts)
    # A date of the prompt is the only place for digits.
    assert all(re.fullmatch(r"[А-Яа-яЁё ,.:;!?-]+", re.sub(r"\b\d{1,2} (?=[а-я])", "", text)) for text in texts)
    assert len(set(texts)) == len(texts)


def test_every_word_of_a_free_text_is_in_the_lexicon() -> None:
    known = prose.lexicon()
    rng = random.Random(4)
    for _ in range(500):
        _, text, _ = prose.write(rng, lambda: "", lambda prompt: True)
        assert {word for word in re.findall(r"[а-яё]+", text.lower()) if word not in known} == set()


def test_text_stays_out_of_the_examples_domains() -> None:
    words = set()
    for row in itertools.islice(RUSSIAN.training_rows(3), 4000):
        for message in row.messages:
            words.update(re.findall(r"[а-яё]+", message["content"].lower()))
    assert {word for word in words if forbidden(word)} == set()
    assert forbidden("гороскоп") and forbidden("девы") and not forbidden("деревня")


def test_evaluation_values_and_prompts_are_never_in_training() -> None:
    seen, prompts = set(), set()
    for row in itertools.islice(RUSSIAN.training_rows(21), 3000):
        (prompts if row.kind == "prose" else seen).update(
            (row.messages[0]["content"],) if row.kind == "prose" else row.values
        )
    rows = [row for kind in ("who", "where", "price") for row in RUSSIAN.evaluation_rows(4, kind, 100)]
    held = {value for row in rows for value in row.values}
    assert len(held) > 250 and not held & seen
    assert RUSSIAN.prose_rows
    asked = {row.messages[0]["content"] for row in RUSSIAN.prose_rows(4, 300)}
    assert len(asked) > 250 and not asked & prompts


def test_files_are_there_and_small() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {path.name for path in BASE_DIR.iterdir()}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < LIMIT_BYTES


def test_card_is_written_from_the_measured_figures() -> None:
    from understudy.models.tiny.card import write

    figures = json.loads((FOLDER / "training.json").read_text())
    readme = (FOLDER / "README.md").read_text()
    assert readme == write(figures)
    assert "language: ru" in readme and "A fixture, not a product" in readme
    assert set(figures["kinds"]) == {*RUSSIAN.kinds, "all"}
    assert figures["vocabularies"]["joint"] and figures["prose"]["n"] >= 100
    assert not re.search(r"/(home|root|tmp|work|Users)/", readme)


def test_auto_tokenizer_gives_the_ids_of_tokenizers() -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(FOLDER)
    plain = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    texts = [turn["content"] for row in itertools.islice(RUSSIAN.training_rows(7), 60) for turn in row.messages]
    texts += [
        "Ёлка — «Ель»",
        "a\n\n b  в",
        "Цена 3,75 €, наивно – 東京",
        "<|im_start|>user\nДа<|im_end|>\n",
        "е\u0308 и\u0306",
    ]
    assert [auto(text, add_special_tokens=False)["input_ids"] for text in texts] == [
        plain.encode(text).ids for text in texts
    ]
    sentence = "Кто ведёт экскурсию «Тихая Велдова»? В 10:30 у причала Б12."
    assert auto.decode(plain.encode(sentence).ids) == sentence


def test_no_token_of_the_vocabulary_holds_half_a_letter() -> None:
    from understudy.models.tiny import tokenizer

    back = {shown: byte for byte, shown in tokenizer.byte_table().items()}
    plain = tokenizer.load(FOLDER)
    merged = [token for token, index in plain.get_vocab().items() if index >= 3 and len(token) > 1]
    whole = []
    for token in merged:
        try:
            bytes(back[letter] for letter in token).decode()
        except UnicodeDecodeError:
            continue
        whole.append(token)
    assert len(merged) > 1500 and len(merged) - len(whole) < 20  # first steps to letters of three bytes, as in "—"
    pieces = tokenizer.name_pieces(plain)
    assert set(plain.encode("Тамир").ids) <= set(pieces) and not set(plain.encode(" «, 14").ids) & set(pieces)


def test_the_name_mark_of_the_english_base_is_on_the_same_tokens_as_ever() -> None:
    from understudy.models.tiny import tokenizer

    plain = tokenizer.load(BASE_DIR)
    assert tokenizer.name_pieces(plain) == sorted(
        index for token, index in plain.get_vocab().items() if token.isascii() and token.isalpha()
    )


@pytest.mark.slow
def test_copies_unseen_names_in_full_sentences(base: tuple[Any, Any]) -> None:
    from understudy.models.tiny.measure import answers

    rows = [row for kind in RUSSIAN.kinds for row in RUSSIAN.evaluation_rows(99, kind, 8)]
    found = answers(*base, rows, batch_size=36)
    exact = sum(answer == row.messages[-1]["content"] for answer, row in zip(found, rows, strict=True))
    # The share of the card, less three standard errors of 72 answers.
    share = json.loads((FOLDER / "training.json").read_text())["kinds"]["all"]["share"]
    assert exact / len(rows) >= share - 3 * (share * (1 - share) / len(rows)) ** 0.5, f"{exact} of {len(rows)} right"
    assert exact / len(rows) > 0.9


def at_least(measure: str, count: int) -> float:
    """A share of the card, less three standard errors of `count` texts."""
    share: float = json.loads((FOLDER / "training.json").read_text())["prose"]["model"][measure]["share"]
    return share - 3 * (share * (1 - share) / count) ** 0.5


@pytest.mark.slow
def test_free_texts_are_russian_letters_of_the_asked_length(free_texts: list[tuple[str, str, str]]) -> None:
    for _, _, text in free_texts:
        assert "\ufffd" not in text  # no token cut a letter in two
        assert len(re.findall(r"[А-Яа-яЁё ,.:;!?]", text)) / len(text) > 0.95
    fitting = sum(250 <= len(text) <= 550 for _, _, text in free_texts)
    assert fitting / len(free_texts) >= at_least("250 to 550 characters", len(free_texts))


@pytest.mark.slow
def test_free_texts_are_about_the_prompt_and_differ(free_texts: list[tuple[str, str, str]]) -> None:
    on_topic = sum(topic in text.lower() for _, topic, text in free_texts)
    assert on_topic / len(free_texts) >= at_least("names its topic", len(free_texts))
    assert len({text for _, _, text in free_texts}) == len(free_texts)


def test_training_can_go_on_with_a_base_that_is_there(base: tuple[Any, Any]) -> None:
    import torch

    from understudy.models.tiny import pretrain, tokenizer

    recipe = pretrain.Recipe(language="ru", vocab_size=RUSSIAN.vocab_size, start_at=0.5)
    model = pretrain.build_model(recipe, tokenizer.load(FOLDER), FOLDER)
    pairs = list(zip(model.state_dict().items(), base[0].state_dict().items(), strict=True))
    assert all(torch.equal(mine, theirs) for (_, mine), (_, theirs) in pairs)
    first = {"optimizer_steps": 10, "rows": 20, "tokens": 600, "supervised_tokens": 300, "minutes": 2.0, "curve": []}
    later = first | {"curve": [{"minutes": 0.5, "tokens": 150, "loss": 1.0}]}
    both = pretrain.added(pretrain.added(first, later), later)
    assert (both["tokens"], both["minutes"], both["parts"], both["tokens_per_s"]) == (1800, 6.0, [2.0, 2.0, 2.0], 5)
    assert both["curve"][-1] == {"minutes": 4.5, "tokens": 1350, "loss": 1.0}


def test_the_configuration_names_the_base(tmp_path: Path) -> None:
    from understudy.models.base_files import locate

    assert locate("tiny-ru", tmp_path) == FOLDER
    assert locate("tiny", tmp_path) == BASE_DIR

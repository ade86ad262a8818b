"""Word n-grams as numbers: equal where a reader sees equal words, different elsewhere, the same in every process."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.data.shingles import Grams, ngrams, words, words_and_scripts

TEXTS = [
    "The cat sat; the CAT, it seems, sat down.",
    "",
    "  ...  ",
    "Мама мыла раму, а мама - нет 25 раз.",
    "один",
    "x " * 40,
]


def listed(grams: Grams) -> list[list[int]]:
    return [grams[i].tolist() for i in range(len(grams))]


def test_a_hash_stands_for_a_word_and_an_n_gram_for_its_words_in_order() -> None:
    spoken = [re.findall(r"\w+", text.lower()) for text in TEXTS]
    found = listed(words(TEXTS))
    assert [len(w) for w in found] == [len(w) for w in spoken]
    names = dict(zip(itertools.chain(*spoken), itertools.chain(*found), strict=True))
    assert found == [[names[w] for w in ws] for ws in spoken] and len(set(names.values())) == len(names)
    for n in (1, 2, 5):
        expected = [[tuple(ws[i : i + n]) for i in range(len(ws) - n + 1)] for ws in spoken]
        grams = listed(ngrams(words(TEXTS), n))
        assert [len(g) for g in grams] == [len(e) for e in expected]
        pairs = set(zip(itertools.chain(*expected), itertools.chain(*grams), strict=True))
        assert len(pairs) == len({e for e, _ in pairs}) == len({g for _, g in pairs})


@given(texts=st.lists(st.text(alphabet="ab \u00adя中\U0001d400\U0002a6d6\n.1", max_size=12), max_size=6))
@settings(max_examples=150, deadline=None)
def test_a_text_has_the_same_n_grams_alone_and_in_any_batch(texts: list[str]) -> None:
    for n in (1, 3):
        assert listed(ngrams(words(texts), n)) == [ngrams(words([t]), n)[0].tolist() for t in texts]


@pytest.mark.parametrize(
    ("given", "twin"),
    [
        ("Кафе \u0439од \u0451ж", "Кафе \u0438\u0306од \u0435\u0308ж"),
        ("caf\u00e9 au lait", "cafe\u0301 au lait"),
        ("infor\u00admation\u200b about\u2060 it\ufeff", "information about it"),
        ("M\u043esc\u043ew is \u0441\u043eld", "Moscow is cold"),
        ("\uff28\uff45\uff4c\uff4c\uff4f 12", "hello \uff11\uff12"),
        ("\U0001d407ello", "hello"),
        ("ONE, two!", "one -- Two"),
        ("\u200fשלום\u200e", "שלום"),
    ],
)
def test_twins_that_look_alike_are_equal(given: str, twin: str) -> None:
    ours, theirs = listed(words([given, twin]))
    assert ours == theirs and ours


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("все", "всё"),
        ("мой", "мои"),
        ("бар", "вар"),
        ("ınci", "inci"),
        ("5", "7"),
        ("ab c", "a bc"),
        ("Straße", "Strase"),
    ],
)
def test_different_words_stay_different(one: str, other: str) -> None:
    ours, theirs = listed(words([one, other]))
    assert ours != theirs


def test_scripts_without_spaces_give_a_word_a_character() -> None:
    assert [len(w) for w in listed(words(["東京abc大学", "สวัสดี x", "하늘 땅", "𠀀𠀁"]))] == [5, 7, 2, 2]


def test_the_script_of_a_text_is_that_of_most_of_its_letters() -> None:
    texts = ["Moscow 12", "M\u043esc\u043ew", "Москва", "\u0441\u043e\u0440", "αβγ", "東京", "12 ...", ""]
    assert words_and_scripts(texts)[1].tolist() == [1, 1, 3, 3, 2, 4, 0, 0]


def test_hashes_are_the_same_in_every_process() -> None:
    """Artifacts depend on them; the value was computed once and must hold on every machine."""
    program = "from understudy.data.shingles import *; print(ngrams(words(['Мама мыла раму']), 2).hashes.tolist())"
    seen = []
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run([sys.executable, "-c", program], check=True, env=environment, capture_output=True)
        seen.append(done.stdout.decode())
    assert seen == ["[1734206384924189842, 11558602166745275853]\n"] * 2


def test_no_two_of_many_words_and_n_grams_collide() -> None:
    text = " ".join(f"w{i}" for i in range(200_000))
    grams = words([text])
    every = np.concatenate([grams.hashes, ngrams(grams, 2).hashes])
    assert len(np.unique(every)) == len(every) == 399_999
    # What a MinHash takes of them is spread evenly: each of 256 high and low bytes near its share.
    for part in (every >> np.uint64(56), every & np.uint64(255)):
        counts = np.bincount(part.astype(np.int64), minlength=256)
        assert counts.min() / counts.mean() > 0.9 and counts.max() / counts.mean() < 1.1

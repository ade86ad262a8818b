"""Generated documents whose duplicates are known: distinct ones, exact copies, near copies and templated rows.

English and Russian in equal parts, about 600 characters, words of our own making with the frequencies of real text
(Zipf's law). What a row is stands in its `Label`, never in the row.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from understudy.core.records import Document

DISTINCT, EXACT, NEAR, TEMPLATE_60, TEMPLATE_85 = "distinct", "exact", "near", "template-60", "template-85"
SHARES = {DISTINCT: 0.6, EXACT: 0.1, NEAR: 0.1, TEMPLATE_60: 0.1, TEMPLATE_85: 0.1}
TEMPLATES = 20  # of each of the two kinds
WORDS = 100  # of a templated row
VOCABULARY = 6000

LITTLE = {
    "en": "the of and a to in is was for on that with as it by at from are this be or an which not but has",
    "ru": "и в на не что с по как это из у за от о к до для же так но а или его её при они был если все ещё",
}
PARTS = {
    "en": (
        "ar bel cor dan el fer gil har in jol kes lam mer nor ost pel quin ras sel tor ul ven wil yar zet",
        "a e i o ea ou ing er on al ist ant ive ow ent ure ard ell ick oss",
        "n r l t s d m k ld nt st rd ness ment tion ly ed es",
    ),
    "ru": (
        "бер вол гор дан жал зор кам лес мор нож пол рад сот тар уд фел хол цен чар шум щед яр",
        "а о е и у ю ов ен ик ор ал иш ав ын ел ом ас ит уш ёр",
        "н л т к р ть ный ная ого ами ение ость ски ами ует али ешь ок ка",
    ),
}


@dataclass(frozen=True, slots=True)
class Label:
    """What a row is; rows of one `family` are copies of one text, and a good result keeps one of them."""

    kind: str
    family: int


class Language:
    """A vocabulary and sentences with its words; every draw comes from the given generator."""

    def __init__(self, name: str, seed: int) -> None:
        rng = random.Random(f"{name} {seed}")
        little = LITTLE[name].split()
        stems, middles, endings = (parts.split() for parts in PARTS[name])
        short = {a + b for a in stems for b in middles}
        long = {word + c for word in short for c in endings} - short
        some = VOCABULARY - len(little) - len(short)
        self.vocabulary = [*little, *rng.sample(sorted(short), len(short)), *rng.sample(sorted(long), some)]
        self.weights = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(len(self.vocabulary))))

    def words(self, rng: random.Random, count: int) -> list[str]:
        drawn = rng.choices(self.vocabulary, cum_weights=self.weights, k=count)
        return [str(rng.randint(2, 2030)) if rng.random() < 0.02 else word for word in drawn]

    def written(self, rng: random.Random, words: Sequence[str]) -> list[str]:
        """`words` with commas, full stops and capitals, as they would stand in a text."""
        text, left = list(words), 0
        for i, word in enumerate(text):
            if left == 0:
                text[i], left = word.capitalize(), rng.randint(6, 16)
            left -= 1
            if left == 0 or i == len(text) - 1:
                text[i] += "."
            elif rng.random() < 0.08:
                text[i] += ","
        return text


def edited(words: Sequence[str], rng: random.Random, language: Language) -> list[str]:
    """A near copy: 3 to 8 % of the words replaced (half of them), removed or joined by a new one."""
    count = max(1, round(rng.uniform(0.03, 0.08) * len(words)))
    copy: list[str] = list(words)
    for place in sorted(rng.sample(range(len(words)), count), reverse=True):
        new = language.words(rng, 1)
        way = rng.random()
        copy[place : place + (way < 0.75)] = new if way < 0.5 or way >= 0.75 else []
    return copy


class Template:
    """Boilerplate with three gaps; `fill` writes a row in which only the gaps differ."""

    def __init__(self, language: Language, shared: float, rng: random.Random) -> None:
        self.language, fixed = language, round(shared * WORDS)
        self.own = WORDS - fixed
        text = language.written(rng, language.words(rng, fixed))
        cuts = sorted(rng.sample(range(8, fixed - 8), 3))
        self.runs = [text[a:b] for a, b in itertools.pairwise([0, *cuts, fixed])]

    def fill(self, rng: random.Random) -> list[str]:
        own = self.language.words(rng, self.own)
        sizes = [self.own // 3, self.own // 3, self.own - 2 * (self.own // 3)]
        ends = list(itertools.accumulate(sizes, initial=0))
        gaps = [own[a:b] for a, b in itertools.pairwise(ends)]
        return [*self.runs[0], *itertools.chain(*(gap + run for gap, run in zip(gaps, self.runs[1:], strict=True)))]


def generate(rows: int, seed: int = 0) -> Iterator[tuple[Document, Label]]:
    """`rows` documents in a shuffled order; the same for the same arguments on every machine."""
    rng = random.Random(seed)
    languages = {name: Language(name, seed) for name in LITTLE}
    kinds = [kind for kind, share in SHARES.items() for _ in range(round(share * rows))][:rows]
    kinds += [DISTINCT] * (rows - len(kinds))
    templates = {
        (kind, name): [Template(language, shared, rng) for _ in range(TEMPLATES // 2)]
        for kind, shared in ((TEMPLATE_60, 0.60), (TEMPLATE_85, 0.85))
        for name, language in languages.items()
    }
    texts, labels = list[tuple[str, list[str]]](), list[Label]()
    originals = kinds.count(DISTINCT)
    for i, kind in enumerate(kinds):  # distinct ones come first, so that there is something to copy
        name = ("en", "ru")[i % 2]
        language = languages[name]
        if kind == DISTINCT:
            text, family = language.written(rng, language.words(rng, rng.randint(80, 120))), i
        elif kind in (EXACT, NEAR):
            family = rng.randrange(originals)
            name, text = texts[family]
            text = text if kind == EXACT else edited(text, rng, languages[name])
        else:
            text, family = rng.choice(templates[kind, name]).fill(rng), i
        texts.append((name, text))
        labels.append(Label(kind, family))
    order = list(range(rows))
    rng.shuffle(order)
    for place, i in enumerate(order):
        name, text = texts[i]
        yield Document(f"row-{place}", " ".join(text), {"language": name, "source": "generated"}), labels[i]


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a set of kept rows answers the labels; each value between 0 and 1, counted over distinct texts."""

    precision: float
    """Of the texts that were removed, those of which a copy of the same family was kept."""
    recall: float
    """Of the texts that should have been removed, those that were."""
    templated_removed: float
    """Of the templated rows, all distinct, those that were removed."""
    exact_recall: float
    """Of the rows with a text that stands earlier in the file, those that were removed."""


def quality(rows: Iterable[tuple[Document, Label]], kept: set[str]) -> Quality:
    """Judge by families: of a family with n distinct texts, n - 1 should go."""
    families: dict[int, dict[str, list[bool]]] = {}
    templated = set[int]()
    for document, label in rows:
        families.setdefault(label.family, {}).setdefault(document.text, []).append(document.id in kept)
        if label.kind in (TEMPLATE_60, TEMPLATE_85):
            templated.add(label.family)
    removed = right = wanted = templated_removed = extra = extra_removed = 0
    for family, texts in families.items():
        gone = sum(not any(stays) for stays in texts.values())
        removed, wanted = removed + gone, wanted + len(texts) - 1
        right += min(gone, len(texts) - 1)
        templated_removed += family in templated and gone > 0
        for stays in texts.values():
            extra += len(stays) - 1
            extra_removed += len(stays) - max(1, sum(stays))
    return Quality(
        right / removed if removed else 1.0,
        right / wanted if wanted else 1.0,
        templated_removed / len(templated) if templated else 0.0,
        extra_removed / extra if extra else 1.0,
    )

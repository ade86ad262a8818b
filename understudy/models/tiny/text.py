"""Seeded writer of the pretraining text: chats that copy, look up and answer from a short context.

A scene is one owner with two things, each with a day, a time, a place, a number and a price; each is a distractor of
the other. Rows: questions (several about one scene), worked examples in one chat, repeating, look-up, listing.
`level` 0..1 moves from copying to answering; names with `held=True` are written only for evaluation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from understudy.models.tiny.names import DAYS, OPINIONS, Names
from understudy.models.tiny.rows import Row, message

KINDS = ("who", "when", "where", "count", "price", "list", "opinion", "two", "abstract")
_LAYOUTS = ("{c}\n\nQuestion: {q}",) * 6 + (
    "Context:\n{c}\n\nQuestion: {q}",
    "Context: {c}\nQuestion: {q}",
    "{c}\n\n{q}",
    "Question: {q}\n\n{c}",
    "Answer from the text.\n\n{c}\n\nQuestion: {q}",
)
_FORM_OPEN = ("", "", "It is ", "Answer: ", "Found: ", "{w} ", "{W}: ")
_FORM_MID = (" -> ", ", at ", " | ", ": ", " = ", " ({w}) ", " {w} ", "; see ", ", {w} ")
_FORM_END = (".", ".", "", "!", " {w}.", " ({w})")


@dataclass(frozen=True)
class Domain:
    """Words of one sort of scene: owner verb (-s, base, participle), thing, its verb, place, unit, people."""

    thing: str
    leads: tuple[str, str, str]
    role: str
    runs: tuple[str, str]
    place: str
    unit: str
    people: str


DOMAINS = (
    Domain("tour", ("leads", "lead", "led"), "guide", ("starts", "start"), "hall", "seats", "visitors"),
    Domain("train", ("drives", "drive", "driven"), "driver", ("leaves", "leave"), "track", "seats", "travellers"),
    Domain("ferry", ("steers", "steer", "steered"), "captain", ("sails", "sail"), "dock", "cabins", "passengers"),
    Domain("market", ("runs", "run", "run"), "owner", ("opens", "open"), "square", "stalls", "neighbours"),
    Domain("concert", ("plays", "play", "played"), "singer", ("begins", "begin"), "stage", "tickets", "listeners"),
    Domain("club", ("trains", "train", "trained"), "coach", ("meets", "meet"), "field", "members", "players"),
    Domain("bakery", ("owns", "own", "owned"), "baker", ("bakes", "bake"), "shop", "ovens", "customers"),
    Domain("garden", ("keeps", "keep", "kept"), "keeper", ("opens", "open"), "plot", "trees", "guests"),
    Domain("show", ("directs", "direct", "directed"), "director", ("runs", "run"), "tent", "actors", "critics"),
    Domain("machine", ("repairs", "repair", "repaired"), "mechanic", ("works", "work"), "bay", "wheels", "workers"),
    Domain("dinner", ("cooks", "cook", "cooked"), "chef", ("takes place", "take place"), "kitchen", "plates", "eaters"),
    Domain("walk", ("plans", "plan", "planned"), "ranger", ("goes", "go"), "gate", "miles", "walkers"),
)


@dataclass(frozen=True)
class Thing:
    name: str
    day: str
    time: str
    place: str
    number: str
    price: str


@dataclass(frozen=True)
class Scene:
    """One owner, one or two things, what people say, and the written text."""

    domain: Domain
    owner: str
    things: tuple[Thing, ...]
    opinion: tuple[str, str]
    parts: frozenset[str]
    text: str


@dataclass(frozen=True)
class Ask:
    """A question about a scene and its one right answer; `values` are what the answer must hold."""

    kind: str
    question: str
    answer: str
    entity: str
    values: tuple[str, ...]


def made_up(names: Names) -> Domain:
    """A domain whose nouns and verbs never were: binding has to work for words that were not seen."""
    verb, run = names.word(), names.word()
    return Domain(
        names.word(), (verb + "s", verb, verb + "ed"), names.word(), (run + "s", run), names.word(), names.word() + "s",
        names.word() + "s",
    )  # fmt: skip


def _up(text: str) -> str:
    return text[0].upper() + text[1:]


def _thing_sentence(rng: random.Random, d: Domain, t: Thing, parts: frozenset[str]) -> str:
    """One sentence with every part of a thing, in one of many orders.

    The name comes first: the model starts with a head that looks back for it (`pretrain.copy_circuit`). With names on
    both sides of their values, an earlier base had learnt neither side after 12 M tokens.
    """
    at = rng.choice(("on {} at {}", "on {} at {}", "every {} at {}", "on {} from {}"))
    when, where = at.format(t.day, t.time), f"in {d.place} {t.place}"
    chosen = [text for name, text in (("when", when), ("where", where)) if name in parts]
    rng.shuffle(chosen)
    extras = [
        text for name, text in (("count", f"{t.number} {d.unit}"), ("price", f"{t.price} coins")) if name in parts
    ]
    runs = " ".join((d.runs[0], *chosen))
    if not extras:
        return f"{t.name} {runs}."
    counted = " and ".join(extras)
    if chosen and rng.random() < 0.35:
        return f"{t.name} {rng.choice(('has', 'offers', 'comes with'))} {counted} and {runs}."
    return f"{t.name} {runs} {rng.choice(('and has', 'with', 'and offers', 'for'))} {counted}."


def _owner_sentence(rng: random.Random, d: Domain, owner: str, things: tuple[Thing, ...]) -> str:
    listed = " and ".join(t.name for t in things)
    be, plural = ("is", "") if len(things) == 1 else ("are", "s")
    return _up(
        rng.choice(
            (
                f"{owner} {d.leads[0]} {listed}.",
                f"{listed} {be} {d.leads[2]} by {owner}.",
                f"the {d.thing}{plural} of {owner} {be} {listed}.",
                f"{owner} is the {d.role} of {listed}.",
                f"this year {owner} {d.leads[0]} {listed}.",
                f"the {d.role} of {listed} is {owner}.",
            )
        )
    )


def _opinion_sentence(rng: random.Random, d: Domain, owner: str, opinion: tuple[str, str]) -> str:
    x, y = opinion
    join = rng.choice(("but", "but", "yet", "and"))
    return _up(
        rng.choice(
            (
                f"{d.people} call {owner} {x} {join} {y}.",
                f"{owner} is {x} {join} {y}, say the {d.people}.",
                f"{d.people} find {owner} {x} {join} {y}.",
                f"the {d.people} see {owner} as {x} {join} {y}.",
                f"most {d.people} say that {owner} is {x} {join} {y}.",
            )
        )
    )


def _thing(names: Names) -> Thing:
    rng = names.rng
    return Thing(
        names.title(), rng.choice(DAYS), names.clock(), names.code(), str(rng.randint(2, rng.choice((12, 99, 999)))),
        names.decimal(),
    )  # fmt: skip


def write_scene(names: Names, level: float, domain: Domain | None = None, needed: tuple[str, ...] = ()) -> Scene:
    """Draws a scene; `needed` parts are always in it."""
    rng = names.rng
    d = domain or (made_up(names) if rng.random() < 0.2 else rng.choice(DOMAINS))
    things = tuple(_thing(names) for _ in range(2 if rng.random() < 0.3 + 0.55 * level else 1))
    optional = ("when", "where", "count", "price")
    share = 0.45 + 0.25 * level
    parts = frozenset(p for p in optional if p in needed or rng.random() < (0.3 if p == "price" else share))
    owner = names.person()
    x, y = rng.sample(OPINIONS, 2)
    sentences = [_thing_sentence(rng, d, t, parts) for t in things] if parts else []
    intro = _owner_sentence(rng, d, owner, things)
    if "opinion" in needed or rng.random() < 0.6:
        parts |= {"opinion"}
        sentences.insert(rng.choice((0, len(sentences))), _opinion_sentence(rng, d, owner, (x, y)))
    sentences.insert(0 if rng.random() < 0.7 else rng.randint(0, len(sentences)), intro)
    return Scene(d, owner, things, (x, y), parts, " ".join(sentences))


def _asks(scene: Scene, t: Thing) -> dict[str, list[tuple[str, str]]]:
    """Questions about one thing, or the owner, with the answer whose wording the question fixes."""
    d, p, e = scene.domain, scene.owner, t.name
    when = f"on {t.day} at {t.time}"
    listed = " and ".join(x.name for x in scene.things)
    x, y = scene.opinion
    return {
        "who": [
            (f"Who {d.leads[0]} {e}?", f"{p} {d.leads[0]} {e}."),
            (f"Who is the {d.role} of {e}?", f"The {d.role} of {e} is {p}."),
            (f"By whom is {e} {d.leads[2]}?", f"{e} is {d.leads[2]} by {p}."),
            (f"Whose {d.thing} is {e}?", f"{e} is the {d.thing} of {p}."),
        ],
        "when": [
            (f"When does {e} {d.runs[1]}?", f"{e} {d.runs[0]} {when}."),
            (f"On which day and at what time is {e}?", f"{e} is {when}."),
            (f"I want to see {e}. When is it?", f"You can see {e} {when}."),
            (f"What time should I come for {e}?", f"For {e}, come {when}."),
        ],
        "where": [
            (f"Where is {e}?", f"{e} is in {d.place} {t.place}."),
            (f"Which {d.place} is {e} in?", f"{e} is in {d.place} {t.place}."),
            (f"What {d.place} do I need for {e}?", f"For {e} you need {d.place} {t.place}."),
            (f"Where do I find {e}?", f"You find {e} in {d.place} {t.place}."),
        ],
        "count": [
            (f"How many {d.unit} does {e} have?", f"{e} has {t.number} {d.unit}."),
            (f"How many {d.unit} are there for {e}?", f"There are {t.number} {d.unit} for {e}."),
            (f"If I take {e}, how many {d.unit} is that?", f"That is {t.number} {d.unit} for {e}."),
        ],
        "price": [
            (f"What does {e} cost?", f"{e} costs {t.price} coins."),
            (f"How many coins is {e}?", f"{e} is {t.price} coins."),
        ],
        "list": [
            (f"What does {p} {d.leads[1]}?", f"{p} {d.leads[0]} {listed}."),
            (f"Which names belong to {p}?", f"{listed} belong to {p}."),
            (f"What can I find with {p}?", f"With {p} you can find {listed}."),
        ],
        "opinion": [
            (f"What do {d.people} say about {p}?", f"{_up(d.people)} say that {p} is {x} and {y}."),
            (f"How do {d.people} find {p}?", f"{_up(d.people)} find {p} {x} and {y}."),
            (f"What is {p} like?", f"{p} is {x} and {y}."),
            (f"Is {p} any good?", f"{p} is {x} and {y}, as people say."),
        ],
        "two": [
            (f"When and where is {e}?", f"{e} is {when}, in {d.place} {t.place}."),
            (f"Who {d.leads[0]} {e}, and when is it?", f"{p} {d.leads[0]} {e}, and it is {when}."),
        ],
    }


_NEEDED = {
    "who": (), "when": ("when",), "where": ("where",), "count": ("count",), "price": ("price",), "list": (),
    "opinion": ("opinion",), "two": ("when", "where"),
}  # fmt: skip


def ask(names: Names, scene: Scene, kind: str = "") -> Ask | None:
    """Draws a question about a scene, of the wanted kind if given; None where the scene has none such."""
    rng = names.rng
    t = rng.choice(scene.things)
    kinds = [
        k for k, needed in _NEEDED.items() if set(needed) <= scene.parts and (k != "list" or len(scene.things) > 1)
    ]
    if kind and kind not in kinds:
        return None
    kind = kind or rng.choice(kinds)
    question, answer = rng.choice(_asks(scene, t)[kind])
    values: dict[str, tuple[str, ...]] = {
        "who": (scene.owner,), "when": (t.day, t.time), "where": (t.place,), "count": (t.number,), "price": (t.price,),
        "list": tuple(x.name for x in scene.things), "opinion": scene.opinion, "two": (t.day, t.time),
    }  # fmt: skip
    entity = scene.owner if kind in ("list", "opinion") else t.name
    return Ask(kind, question, answer, entity, values[kind])


def _must_ask(names: Names, level: float, kind: str, domain: Domain | None = None) -> tuple[Scene, Ask]:
    while True:
        scene = write_scene(names, level, domain, _NEEDED.get(kind, ()))
        found = ask(names, scene, kind)
        if found:
            return scene, found


def question_row(names: Names, level: float, turns: int = 1, kind: str = "", domain: Domain | None = None) -> Row:
    """A scene and a question; further turns ask more about the same scene."""
    rng = names.rng
    scene, first = _must_ask(names, level, kind, domain)
    messages = [message("user", rng.choice(_LAYOUTS).format(c=scene.text, q=first.question))]
    messages.append(message("assistant", first.answer))
    asked = {first.question}
    for _ in range(turns - 1):
        more = ask(names, scene)
        if more and more.question not in asked:
            asked.add(more.question)
            messages += [message("user", more.question), message("assistant", more.answer)]
    return Row(first.kind, messages, values=first.values)


def form(names: Names) -> str:
    """A made-up answer format with the slots e and v, or v alone."""
    rng = names.rng
    mid = rng.choice(_FORM_MID)
    body = rng.choice(("{{e}}" + mid + "{{v}}", "{{v}}" + mid + "{{e}}", "{{v}}"))
    frame = rng.choice(_FORM_OPEN) + body + rng.choice(_FORM_END)
    while "{w}" in frame:
        frame = frame.replace("{w}", names.word(), 1)
    return frame.replace("{W}", names.cap()).replace("{{", "{").replace("}}", "}")


def shots_row(names: Names, level: float, turns: int, unusual: bool) -> Row:
    """Worked examples, each with its own context, in one chat; `unusual` ones share a made-up answer format."""
    rng = names.rng
    domain = rng.choice(DOMAINS)
    layout = rng.choice(_LAYOUTS)
    kind = rng.choice(tuple(_NEEDED)) if unusual or rng.random() < 0.5 else ""
    frame = form(names) if unusual else ""
    messages: list[dict[str, str]] = []
    last: Ask | None = None
    for _ in range(turns):
        scene, last = _must_ask(names, level * 0.5, kind, domain)
        answer = frame.format(e=last.entity, v=" and ".join(last.values)) if unusual else last.answer
        messages += [message("user", layout.format(c=scene.text, q=last.question)), message("assistant", answer)]
    assert last is not None  # turns >= 1
    return Row("shots", messages, supervise_from=1 if unusual else 0, values=last.values)


def _some_words(names: Names) -> str:
    rng = names.rng
    makers: tuple[Callable[[], str], ...] = (
        names.person,
        names.title,
        names.code,
        names.decimal,
        names.clock,
        names.word,
    )
    return rng.choice((" ", ", ", "\n")).join(rng.choice(makers)() for _ in range(rng.randint(3, 12)))


def repeat_row(names: Names, level: float) -> Row:
    """Text that the answer repeats."""
    text = _some_words(names) if names.rng.random() < 0.5 else write_scene(names, level).text
    prompt = f"Repeat the text.\n\n{text}" if names.rng.random() < 0.7 else f"{text}\n\nRepeat the text."
    return Row("repeat", [message("user", prompt), message("assistant", text)])


def lookup_row(names: Names, level: float) -> Row:
    """Pairs of a made-up key and a value; the turns ask for keys."""
    rng = names.rng
    keys = list(dict.fromkeys(names.cap() for _ in range(rng.randint(2, 4 + round(4 * level)))))
    maker = rng.choice((names.title, names.code, names.person, names.clock, names.decimal))
    pairs = {key: maker() for key in keys}
    context = "\n".join(f"{key}: {value}" for key, value in pairs.items())
    messages: list[dict[str, str]] = []
    for key in rng.sample(keys, rng.randint(1, len(keys))):
        user = f"{key}?" if messages else f"{context}\n\n{key}?"
        messages += [message("user", user), message("assistant", f"{key}: {pairs[key]}")]
    return Row("lookup", messages)


def listing_row(names: Names, level: float) -> Row:
    """Names the things of a scene, one a line."""
    scene = write_scene(names, level)
    answer = "\n".join(f"- {t.name}" for t in scene.things)
    return Row("listing", [message("user", f"{scene.text}\n\nList the names."), message("assistant", answer)])


def training_row(names: Names, level: float) -> Row:
    """One row of the mixture: mostly copying at level 0, mostly questions at level 1."""
    rng = names.rng
    draw = rng.random()
    copy, lookup, shots = 0.45 - 0.4 * level, 0.25 - 0.22 * level, 0.1 * level
    if draw < copy:
        return repeat_row(names, level)
    if draw < copy + lookup:
        return lookup_row(names, level)
    if draw < copy + lookup + shots:
        return shots_row(names, level, rng.choice((2, 3, 4, 5, 6, 8, 9)), unusual=rng.random() < 0.6)
    if draw < copy + lookup + shots + 0.02:
        return listing_row(names, level)
    return question_row(names, level, turns=rng.choice((2, 3, 4, 5, 6, 8)))


def training_rows(seed: int, level: float = 1.0) -> Iterator[Row]:
    """Endless training rows of one level."""
    names = Names(random.Random(seed))
    while True:
        yield training_row(names, level)


def evaluation_rows(seed: int, kind: str, count: int) -> list[Row]:
    """Single questions of one kind whose made-up names and numbers no training row can hold."""
    names = Names(random.Random(f"{seed}-{kind}"), held=True)
    rows: list[Row] = []
    for _ in range(count):
        if kind == "abstract":
            row = question_row(names, 1.0, domain=made_up(names))
        else:
            row = question_row(names, 1.0, kind=kind, domain=names.rng.choice(DOMAINS))
        rows.append(replace(row, kind=kind))
    return rows


def shots_rows(seed: int, shots: int, count: int) -> list[Row]:
    """Questions after `shots` worked examples in a made-up format with held words; the last answer is to be written."""
    names = Names(random.Random(f"{seed}-shots"), held=True)
    rows = [shots_row(names, 1.0, 5, unusual=True) for _ in range(count)]
    return [replace(row, messages=row.messages[len(row.messages) - 2 * (shots + 1) :]) for row in rows]

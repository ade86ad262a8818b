"""Seeded writer of the pretraining text: chats that copy, look up and answer from a context.

A scene is one to four named things of one domain with several facts each; a question must bind the right thing and
the right relation. Rows: questions (one or several about a scene), worked examples in one chat ("shots"), repeating,
look-up, listing and notes. `level` 0..1 moves from copying to answering; `held=True` writes only unseen names.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from understudy.models.tiny.frames import DOMAINS, FRAMES, VALUES, Domain, Relation, made_up
from understudy.models.tiny.names import Names

KINDS = ("who", "where", "when", "count", "price", "code", "what", "list", "opinion", "which", "two", "abstract")
_SYSTEM = (
    "You answer from the context.",
    "Answer in one sentence.",
    "You are a helpful assistant.",
    "Use only the text that is given.",
    "Be short and exact.",
)
_INSTRUCTIONS = (
    "Answer the question from the context.",
    "Use the text to answer in a full sentence.",
    "Read the text, then answer.",
    "Answer with the facts below.",
    "Please answer in one sentence.",
)
_LAYOUTS = (
    "Context:\n{c}\n\nQuestion: {q}",
    "Context:\n{c}\n\nQuestion: {q}",
    "{c}\n\nQuestion: {q}",
    "{c}\n\n{q}",
    "Question: {q}\n\nContext:\n{c}",
    "{q}\n\n{c}",
    "Text: {c}\nQ: {q}",
    "{c}\nQuestion: {q}\nAnswer:",
    "### Context\n{c}\n\n### Question\n{q}",
    "<context>\n{c}\n</context>\n\n{q}",
    "Facts:\n{c}\n\n{q}\nAnswer:",
    "{c} {q}",
)
_FILLERS = (
    "It was a quiet day.",
    "Much has been written about it.",
    "The list below is new.",
    "Some things may change later.",
    "This page was printed in spring.",
    "Here is what is known.",
    "All of this is easy to check.",
    "Nothing else is planned.",
)
_TALK = (
    ("Hello!", "Hello! How can I help you?"),
    ("Good morning.", "Good morning! What would you like to know?"),
    ("Thank you.", "You are welcome."),
    ("What can you do?", "I can answer questions about a text that you give me."),
    ("Who are you?", "I am a small language model."),
    ("Goodbye.", "Goodbye!"),
)
_REPEAT = ("Repeat the text.", "Copy the text below.", "Say this again.", "Write the same text once more.")
_FORM_OPEN = ("", "", "", "It is ", "Answer: ", "=> ", "* ", "(", "Found: ", "{w} ", "{W}: ", "{W} {w} ")
_FORM_MID = (" -> ", ", at ", " | ", ": ", " = ", " / ", " ({w}) ", " {w} ", " {w} {w} ", "; see ", " - ", ", {w} ")
_FORM_END = (".", "", "!", ";", " {w}.", " ({w})", " {W}", ")")


@dataclass(frozen=True)
class Row:
    """One chat; assistant turns before number `supervise_from` carry no loss (their wording cannot be known)."""

    kind: str
    messages: list[dict[str, str]]
    supervise_from: int = 0
    values: tuple[str, ...] = field(default=())  # what the last answer must hold


@dataclass(frozen=True)
class Scene:
    """A context: entity names, their facts and the written text."""

    domain: Domain
    entities: list[str]
    facts: dict[tuple[int, Relation], str]
    text: str


@dataclass(frozen=True)
class Ask:
    """A question about a scene, its one right answer, and what the answer copies."""

    kind: str
    question: str
    answer: str
    entity: str
    values: tuple[str, ...]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _fill(frame: str, relation: Relation, entity: str, value: str, noun: str) -> str:
    """Puts one fact into a frame; the sentence starts with a capital."""
    article = "an" if relation.noun[0] in "aeiou" else "a"
    text = frame.format(
        e=entity, v=value, n=relation.noun, s=relation.verb, b=relation.base, p=relation.participle, t=noun, a=article
    )
    return text[0].upper() + text[1:]


def _entities(names: Names, domain: Domain, count: int) -> list[str]:
    """Distinct names; one scene in sixteen has names that differ only in their last word."""
    rng = names.rng
    if count > 1 and domain.naming == "title" and rng.random() < 0.06:
        stem = f"{names.cap()} {names.cap()}" if rng.random() < 0.5 else names.cap()
        return [
            f"{stem} {end}" for end in rng.sample(("I", "II", "III", "1", "2", "3", names.cap(), names.cap()), count)
        ]
    found: list[str] = []
    while len(found) < count:
        name: str = getattr(names, domain.naming)()
        if name not in found:
            found.append(name)
    return found


def _mention(rng: random.Random, domain: Domain, entity: str) -> str:
    return f"the {domain.noun} {entity}" if rng.random() < 0.12 else entity


def _blocks(
    names: Names, domain: Domain, entities: list[str], facts: dict[tuple[int, Relation], str]
) -> list[list[str]]:
    """Sentences per entity; in some scenes later sentences say "it" instead of the name."""
    rng = names.rng
    pronouns = domain.naming != "person" and rng.random() < 0.1
    blocks: list[list[str]] = [[] for _ in entities]
    for (index, relation), value in facts.items():
        frame = rng.choice(FRAMES[relation.kind].facts)
        mention = _mention(rng, domain, entities[index])
        if pronouns and blocks[index]:
            mention = rng.choice(("it", f"this {domain.noun}"))
            frame = frame.replace("The {n} of {e}", "Its {n}") if mention == "it" else frame
        blocks[index].append(_fill(frame, relation, mention, value, domain.noun))
    if not pronouns and rng.random() < 0.4:
        mixed = [sentence for block in blocks for sentence in block]
        rng.shuffle(mixed)
        return [mixed]
    return blocks


def _card(rng: random.Random, scene: Scene) -> str:
    """The facts as labelled lines, one block per entity."""
    mark, colon = rng.choice((("- ", ": "), ("", ": "), ("* ", " = "), ("", " | ")))
    heads = rng.choice(("{e}", "{e} ({t})", "{t}: {e}", "# {e}", "name: {e}"))
    blocks = []
    for index, entity in enumerate(scene.entities):
        lines = [heads.format(e=entity, t=scene.domain.noun)]
        lines += [f"{mark}{rel.noun}{colon}{value}" for (at, rel), value in scene.facts.items() if at == index]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def write_scene(names: Names, level: float, domain: Domain | None = None) -> Scene:
    """Draws entities and facts and writes the context."""
    rng = names.rng
    if domain is None:
        domain = made_up(names) if rng.random() < 0.3 else rng.choice(DOMAINS)
    most = 1 + (rng.random() < 0.5 + level) + 2 * (rng.random() < level)
    count = rng.randint(1, most)
    size = rng.randint(2, 3 + round(2 * level * rng.random()))
    shared = rng.sample(domain.relations, min(size, len(domain.relations)))
    facts: dict[tuple[int, Relation], str] = {}
    for index in range(count):
        order = shared if rng.random() < 0.5 else rng.sample(shared, len(shared))
        for relation in order:
            if rng.random() < 0.9 or relation is order[0]:
                facts[index, relation] = getattr(names, VALUES[relation.kind])()
    scene = Scene(domain, _entities(names, domain, count), facts, "")
    if rng.random() < 0.12:
        return replace(scene, text=_card(rng, scene))
    blocks = _blocks(names, domain, scene.entities, facts)
    if rng.random() < 0.15:
        blocks[0].insert(0, rng.choice(_FILLERS))
    way = rng.random()
    if way < 0.2:
        text = "\n".join(sentence for block in blocks for sentence in block)
    elif way < 0.4:
        text = "\n\n".join(" ".join(block) for block in blocks)
    else:
        text = " ".join(sentence for block in blocks for sentence in block)
    return replace(scene, text=text)


def _two(names: Names, scene: Scene, index: int) -> Ask | None:
    """Two facts about one entity in one question; None where the entity has but one fact."""
    rng = names.rng
    relations = [rel for at, rel in scene.facts if at == index]
    if len(relations) < 2:
        return None
    first, second = rng.sample(relations, 2)
    noun, entity = scene.domain.noun, _mention(rng, scene.domain, scene.entities[index])
    values = (scene.facts[index, first], scene.facts[index, second])
    (q_1, a_1), (q_2, a_2) = FRAMES[first.kind].clause, FRAMES[second.kind].clause
    q_2, a_2 = (text.replace("the {n} of {e}", "its {n}") for text in (q_2, a_2))
    frame = rng.choice(("{a} and {b}?", "{a}, and {b}?", "Tell me two things: {a}, and {b}?"))
    parts = (_fill(q_1, first, entity, "", noun), _fill(q_2, second, "it", "", noun))
    question = frame.format(
        a=parts[0] if frame[0] == "{" else parts[0][0].lower() + parts[0][1:], b=parts[1][0].lower() + parts[1][1:]
    )
    end = _fill("x" + a_2, second, "it", values[1], noun)[1:]
    return Ask(
        "two", question, f"{_fill(a_1, first, entity, values[0], noun)}, and {end}.", scene.entities[index], values
    )


def ask(names: Names, scene: Scene, kind: str = "") -> Ask | None:
    """Draws a question about a scene, of the wanted kind if given; None where the scene has none such."""
    rng = names.rng
    index = rng.randrange(len(scene.entities))
    draw = rng.random()
    if kind == "two" or (not kind and draw < 0.1):
        return _two(names, scene, index)
    here = [rel for at, rel in scene.facts if at == index and (not kind or kind in ("which", rel.kind))]
    if kind == "which" or (not kind and draw < 0.2):
        values = list(scene.facts.values())
        here = [rel for rel in here if FRAMES[rel.kind].reverse and values.count(scene.facts[index, rel]) == 1]
    if not here:
        return None
    relation = rng.choice(here)
    value, entity = scene.facts[index, relation], scene.entities[index]
    if kind == "which" or (not kind and draw < 0.2):
        question, answer = rng.choice(FRAMES[relation.kind].reverse)
        label, copied = "which", (entity,)
    else:
        question, answer = rng.choice(FRAMES[relation.kind].asks)
        label, copied = relation.kind, (value,)
        entity = _mention(rng, scene.domain, entity)
    noun = scene.domain.noun
    return Ask(
        label,
        _fill(question, relation, entity, value, noun),
        _fill(answer, relation, entity, value, noun),
        scene.entities[index],
        copied,
    )


def _must_ask(names: Names, level: float, kind: str = "", domain: Domain | None = None) -> tuple[Scene, Ask]:
    while True:
        scene = write_scene(names, level, domain)
        found = ask(names, scene, kind)
        if found:
            return scene, found


def _prompt(rng: random.Random, layout: str, scene: Scene, question: str) -> str:
    text = layout.format(c=scene.text, q=question)
    if rng.random() < 0.2:
        line = rng.choice(_INSTRUCTIONS)
        return f"{line}\n\n{text}"
    return text


def question_row(names: Names, level: float, turns: int = 1, kind: str = "", domain: Domain | None = None) -> Row:
    """A scene and a question; further turns ask more about the same scene."""
    rng = names.rng
    scene, first = _must_ask(names, level, kind, domain)
    messages: list[dict[str, str]] = []
    if rng.random() < 0.05:
        messages = [_message("system", f"{rng.choice(_SYSTEM)}\n\n{scene.text}"), _message("user", first.question)]
    else:
        if rng.random() < 0.15:
            messages.append(_message("system", rng.choice(_SYSTEM)))
        messages.append(_message("user", _prompt(rng, rng.choice(_LAYOUTS), scene, first.question)))
    messages.append(_message("assistant", first.answer))
    asked = {first.question}
    for _ in range(turns - 1):
        more = ask(names, scene)
        if more and more.question not in asked:
            asked.add(more.question)
            messages += [_message("user", more.question), _message("assistant", more.answer)]
    return Row(kind or first.kind, messages, values=first.values)


def form(names: Names) -> str:
    """A made-up answer format with the slots e and v (sometimes only v), holding at least one made-up word."""
    rng = names.rng
    while True:
        mid = rng.choice(_FORM_MID)
        body = rng.choice(("{{e}}" + mid + "{{v}}", "{{v}}" + mid + "{{e}}", "{{v}}" + mid + "{{e}}", "{{v}}"))
        frame = rng.choice(_FORM_OPEN) + body + rng.choice(_FORM_END)
        if "{w}" in frame or "{W}" in frame:
            while "{w}" in frame:
                frame = frame.replace("{w}", names.word(), 1)
            return frame.replace("{W}", names.cap()).replace("{{", "{").replace("}}", "}")
        if not names.held and rng.random() < 0.5:
            return frame.replace("{{", "{").replace("}}", "}")


def shots_row(names: Names, level: float, turns: int, unusual: bool) -> Row:
    """Worked examples, each with its own context, in one chat; `unusual` ones share a made-up answer format."""
    rng = names.rng
    domain = (made_up(names) if rng.random() < 0.3 else rng.choice(DOMAINS)) if rng.random() < 0.7 else None
    layout = rng.choice(_LAYOUTS)
    kind = rng.choice([rel.kind for rel in domain.relations]) if domain and rng.random() < 0.6 else ""
    frame = form(names) if unusual else ""
    messages: list[dict[str, str]] = []
    told = unusual and rng.random() < 0.25
    if told:
        messages.append(_message("system", "Answer in this form: " + frame.format(e="<name>", v="<value>")))
    last: Ask | None = None
    while sum(message["role"] == "assistant" for message in messages) < turns:
        scene, last = _must_ask(names, level * 0.5, kind, domain)
        if unusual and last.kind in ("two", "which"):
            continue
        answer = frame.format(e=last.entity, v=last.values[0]) if unusual else last.answer
        messages += [_message("user", layout.format(c=scene.text, q=last.question)), _message("assistant", answer)]
    assert last is not None  # turns >= 1
    return Row("shots", messages, supervise_from=1 if unusual and not told else 0, values=last.values)


def _some_words(names: Names) -> str:
    """Loose words, names and numbers."""
    rng = names.rng
    makers = (
        names.plain,
        names.plain,
        names.cap,
        names.person,
        names.title,
        names.number,
        names.code,
        names.amount,
        names.when,
    )
    return rng.choice((" ", " ", ", ", "\n")).join(rng.choice(makers)() for _ in range(rng.randint(3, 14)))


def repeat_row(names: Names, level: float) -> Row:
    """Text that the answer repeats."""
    rng = names.rng
    text = _some_words(names) if rng.random() < 0.6 else write_scene(names, level * 0.5).text
    head = rng.choice(_REPEAT)
    prompt = f"{head}\n\n{text}" if rng.random() < 0.7 else f"{text}\n\n{head}"
    return Row("repeat", [_message("user", prompt), _message("assistant", text)])


def lookup_row(names: Names, level: float) -> Row:
    """Pairs of a made-up key and a value; the turns ask for keys."""
    rng = names.rng
    keys = list(dict.fromkeys(names.plain() for _ in range(rng.randint(2, 4 + round(6 * level)))))
    maker = rng.choice((names.word, names.cap, names.number, names.code, names.person, names.title))
    pairs = {key: maker() for key in keys}
    colon, end = rng.choice((": ", " = ", " is ", " -> ")), rng.choice(("\n", "; ", ", "))
    answer = rng.choice(("{k}{c}{v}", "{k}{c}{v}", "{v}"))
    context = end.join(f"{key}{colon}{value}" for key, value in pairs.items())
    messages: list[dict[str, str]] = []
    for key in rng.sample(keys, rng.randint(1, len(keys))):
        messages += [
            _message("user", f"{key}?" if messages else f"{context}\n\n{key}?"),
            _message("assistant", answer.format(k=key, c=colon, v=pairs[key])),
        ]
    return Row("lookup", messages, supervise_from=0 if len(answer) > 3 else 1)


def listing_row(names: Names, level: float) -> Row:
    """Names the entities of a scene, or writes its card out in sentences."""
    rng = names.rng
    scene = write_scene(names, level)
    noun = scene.domain.noun
    if rng.random() < 0.5:
        relations = [
            _fill(FRAMES[rel.kind].asks[0][1], rel, scene.entities[at], value, noun)
            for (at, rel), value in scene.facts.items()
        ]
        return Row(
            "note",
            [
                _message("user", f"Write one sentence for each line.\n\n{_card(rng, scene)}"),
                _message("assistant", " ".join(relations)),
            ],
        )
    # The order of first mention is the order of the answer.
    known = sorted(scene.entities, key=scene.text.find)
    if rng.random() < 0.5:
        question, answer = f"List every {noun} that is named.", "\n".join(f"- {entity}" for entity in known)
    else:
        tail = " and ".join(known[-2:])
        question = f"Which {noun} names are in the text?"
        answer = f"The names are {', '.join([*known[:-2], tail])}." if len(known) > 1 else f"The name is {known[0]}."
    return Row("listing", [_message("user", f"{scene.text}\n\n{question}"), _message("assistant", answer)])


def training_row(names: Names, level: float) -> Row:
    """One row of the mixture: mostly copying at level 0, mostly questions at level 1."""
    rng = names.rng
    draw = rng.random()
    copy, lookup, shots = 0.5 - 0.4 * level, 0.25 - 0.2 * level, 0.05 * level
    if draw < copy:
        return repeat_row(names, level)
    if draw < copy + lookup:
        return lookup_row(names, level)
    if draw < copy + lookup + shots:
        return shots_row(names, level, rng.choice((2, 3, 4, 5, 5, 6, 7, 9)), unusual=rng.random() < 0.6)
    if draw < copy + lookup + shots + 0.04 * level:
        return listing_row(names, level)
    if draw > 0.997:
        user, assistant = rng.choice(_TALK)
        return Row("talk", [_message("user", user), _message("assistant", assistant)])
    return question_row(names, level, turns=rng.choice((1, 1, 2, 3, 4, 5, 6, 8)))


def training_rows(seed: int, level: float = 1.0) -> Iterator[Row]:
    """Endless training rows of one level."""
    names = Names(random.Random(seed))
    while True:
        yield training_row(names, level)


def evaluation_rows(seed: int, kind: str, count: int) -> list[Row]:
    """Single questions of one kind whose names and numbers no training row can hold."""
    names = Names(random.Random(f"{seed}-{kind}"), held=True)
    rows: list[Row] = []
    while len(rows) < count:
        if kind == "abstract":
            row = question_row(names, 1.0, domain=made_up(names))
        else:
            domains = [d for d in DOMAINS if kind in KINDS[-3:] or any(rel.kind == kind for rel in d.relations)]
            row = question_row(names, 1.0, kind=kind, domain=names.rng.choice(domains))
        rows.append(replace(row, kind=kind))
    return rows


def shots_rows(seed: int, shots: int, count: int) -> list[Row]:
    """Questions after `shots` worked examples in a made-up format with held words; the last answer is to be written."""
    names = Names(random.Random(f"{seed}-shots"), held=True)
    rows = [shots_row(names, 1.0, 5, unusual=True) for _ in range(count)]
    cut = []
    for row in rows:
        messages = [message for message in row.messages if message["role"] != "system"]
        cut.append(replace(row, messages=messages[len(messages) - 2 * (shots + 1) :]))
    return cut

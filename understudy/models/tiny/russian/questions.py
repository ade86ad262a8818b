"""Russian scenes and questions: chats that copy, look up and answer from a short context.

The model is that of `tiny.text`: a scene is one owner with one or two things, each a distractor of the other. Verbs are
in the present tense and names in the nominative, so no made-up word has to be declined or to agree.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from understudy.models.tiny.rows import Row, message
from understudy.models.tiny.russian.inflection import counted
from understudy.models.tiny.russian.names import RussianNames
from understudy.models.tiny.russian.words import OPINIONS

KINDS = ("who", "when", "where", "count", "price", "list", "opinion", "two", "abstract")
_LAYOUTS = (
    *("{c}\n\nQuestion: {q}",) * 4, *("{c}\n\nВопрос: {q}",) * 4, "Контекст:\n{c}\n\nВопрос: {q}",
    "Контекст: {c}\nВопрос: {q}", "{c}\n\n{q}", "Вопрос: {q}\n\n{c}", "Ответь по тексту.\n\n{c}\n\nВопрос: {q}",
)  # fmt: skip


@dataclass(frozen=True)
class Domain:
    """Words of one sort of scene; nouns by the cases that the sentences use, verbs in the third person."""

    thing: tuple[str, str, str]  # accusative, genitive, nominative plural
    leads: str
    role: str
    runs: str
    place: tuple[str, str, str]  # в зале, в каком зале, какой зал нужен (accusative question)
    unit: tuple[str, str, str]  # место, места, мест
    people: str

    def number(self, count: int) -> str:
        return f"{count} {counted(count, *self.unit)}"


def _domain(text: str) -> Domain:
    thing, leads, role, runs, place, unit, people = (part.strip() for part in text.split("|"))
    where, which, need = place.split("/")
    (accusative, genitive, plural), (one, few, many) = thing.split("/"), unit.split("/")
    return Domain((accusative, genitive, plural), leads, role, runs, (where, which, need), (one, few, many), people)


DOMAINS = tuple(
    _domain(line)
    for line in (
        "экскурсию/экскурсии/экскурсии|ведёт|гид|начинается|в зале/в каком зале/какой зал|место/места/мест|посетители",
        "поезд/поезда/поезда|водит|машинист|отправляется|на пути/на каком пути/какой путь|вагон/вагона/вагонов|"
        "пассажиры",
        "паром/парома/паромы|водит|капитан|отплывает|у причала/у какого причала/какой причал|каюта/каюты/кают|"
        "путешественники",
        "ярмарку/ярмарки/ярмарки|проводит|распорядитель|открывается|на площади/на какой площади/какая площадь|"
        "прилавок/прилавка/прилавков|соседи",
        "концерт/концерта/концерты|даёт|певец|начинается|на сцене/на какой сцене/какая сцена|"
        "билет/билета/билетов|слушатели",
        "секцию/секции/секции|тренирует|тренер|собирается|на поле/на каком поле/какое поле|"
        "участник/участника/участников|игроки",
        "пекарню/пекарни/пекарни|держит|пекарь|открывается|в доме/в каком доме/какой дом|печь/печи/печей|покупатели",
        "сад/сада/сады|бережёт|садовник|открывается|на участке/на каком участке/какой участок|"
        "дерево/дерева/деревьев|гости",
        "спектакль/спектакля/спектакли|ставит|режиссёр|идёт|в шатре/в каком шатре/какой шатёр|"
        "актёр/актёра/актёров|критики",
        "станок/станка/станки|чинит|механик|работает|в цехе/в каком цехе/какой цех|колесо/колеса/колёс|рабочие",
        "ужин/ужина/ужины|готовит|повар|проходит|на кухне/на какой кухне/какая кухня|тарелка/тарелки/тарелок|гурманы",
        "поход/похода/походы|планирует|проводник|начинается|у ворот/у каких ворот/какие ворота|"
        "километр/километра/километров|туристы",
    )
)


def made_up(names: RussianNames) -> Domain:
    """A domain whose nouns and verbs never were; its nouns are declined as `стол`, its verbs end in -ует."""
    thing, place, unit = names.masculine(), names.masculine(), names.masculine()
    return Domain(
        (thing, thing + "а", thing + "ы"), names.masculine() + "ует", names.masculine(), names.masculine() + "ует",
        (f"в {place}е", f"в каком {place}е", f"какой {place}"), (unit, unit + "а", unit + "ов"),
        names.masculine() + "ы",
    )  # fmt: skip


@dataclass(frozen=True)
class Thing:
    name: str
    day: str
    time: str
    place: str
    number: int
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


def _up(text: str) -> str:
    return text[0].upper() + text[1:]


def _quoted(name: str) -> str:
    return f"«{name}»"


def _thing_sentence(rng: random.Random, d: Domain, t: Thing, parts: frozenset[str]) -> str:
    """One sentence with every part of a thing, its name first (see `tiny.text`)."""
    when = rng.choice(("{} в {}", "{} в {}", "{} с {}")).format(t.day, t.time)
    chosen = [text for name, text in (("when", when), ("where", f"{d.place[0]} {t.place}")) if name in parts]
    rng.shuffle(chosen)
    runs = " ".join((d.runs, *chosen))
    extras = []
    if "count" in parts:
        extras.append(rng.choice(("там {}", "это {}", "всего {}")).format(d.number(t.number)))
    if "price" in parts:
        extras.append(rng.choice(("цена {}", "стоит {}", "за {}")).format(t.price))
    rng.shuffle(extras)
    name = t.name if rng.random() < 0.3 else _quoted(t.name)
    if extras and not chosen:
        return f"{name}: {', '.join(extras)}."
    return f"{name} {', '.join((runs, *extras))}."


def _owner_sentence(rng: random.Random, d: Domain, owner: str, things: tuple[Thing, ...]) -> str:
    listed = " и ".join(_quoted(t.name) for t in things)
    one = len(things) == 1
    sort = d.thing[0] if one else d.thing[2]
    return rng.choice(
        (
            f"{owner} {d.leads} {sort} {listed}.",
            f"{_up(sort)} {listed} {d.leads} {owner}.",
            f"{_up(d.role)} {d.thing[1]} {listed} — {owner}." if one else f"{listed} — {sort}, их {d.leads} {owner}.",
            f"{owner} — {d.role}, {d.leads} {sort} {listed}.",
            f"В этом году {owner} {d.leads} {sort} {listed}.",
            f"{listed}: {d.leads} {owner}.",
        )
    )


def _opinion_sentence(rng: random.Random, d: Domain, owner: str, opinion: tuple[str, str]) -> str:
    x, y = opinion
    both = f"{x}{rng.choice((', но', ', но', ', зато', ' и'))} {y}"
    return rng.choice(
        (
            f"{_up(d.people)} говорят: {owner} {both}.",
            f"{owner} {both}, говорят {d.people}.",
            f"{_up(d.people)} считают, что {owner} {both}.",
            f"{owner}, по словам соседей, {both}.",
            f"{owner} — {d.role} {both}.",
        )
    )


def _thing(names: RussianNames) -> Thing:
    rng = names.rng
    number = rng.randint(2, rng.choice((12, 99, 999)))
    return Thing(names.title(), names.day(), names.clock(), names.code(), number, names.price())


def write_scene(names: RussianNames, level: float, domain: Domain | None = None, needed: tuple[str, ...] = ()) -> Scene:
    """Draws a scene; `needed` parts are always in it."""
    rng = names.rng
    d = domain or (made_up(names) if rng.random() < 0.2 else rng.choice(DOMAINS))
    things = tuple(_thing(names) for _ in range(2 if rng.random() < 0.3 + 0.55 * level else 1))
    share = 0.45 + 0.25 * level
    parts = frozenset(
        p for p in ("when", "where", "count", "price") if p in needed or rng.random() < (0.3 if p == "price" else share)
    )
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
    d, p, e = scene.domain, scene.owner, _quoted(t.name)
    when, many = f"{t.day} в {t.time}", d.number(t.number)
    listed = " и ".join(_quoted(x.name) for x in scene.things)
    x, y = scene.opinion
    sort, sorts = d.thing[0], d.thing[2] if len(scene.things) > 1 else d.thing[0]
    return {
        "who": [
            (f"Кто {d.leads} {sort} {e}?", f"{p} {d.leads} {sort} {e}."),
            (f"Кто {d.role} {d.thing[1]} {e}?", f"{_up(d.role)} {d.thing[1]} {e} — {p}."),
            (f"Как зовут того, кто {d.leads} {sort} {e}?", f"{_up(sort)} {e} {d.leads} {p}."),
        ],
        "when": [
            (f"Когда {d.runs} {e}?", f"{e} {d.runs} {when}."),
            (f"В какой день и во сколько {d.runs} {e}?", f"{e}: {when}."),
            (f"Хочу увидеть {sort} {e}. Когда прийти?", f"Чтобы увидеть {sort} {e}, приходите {when}."),
        ],
        "where": [
            (f"Где {d.runs} {e}?", f"{e} {d.runs} {d.place[0]} {t.place}."),
            (f"{_up(d.place[1])} {d.runs} {e}?", f"{e} {d.runs} {d.place[0]} {t.place}."),
            (f"{_up(d.place[2])} мне искать для {d.thing[1]} {e}?", f"{e} — это {d.place[0]} {t.place}."),
            (f"Где мне найти {sort} {e}?", f"Ищите {sort} {e} {d.place[0]} {t.place}."),
        ],
        "count": [
            (f"Сколько {d.unit[2]} у {d.thing[1]} {e}?", f"У {d.thing[1]} {e} {many}."),
            (f"{e}: сколько там {d.unit[2]}?", f"{e}: {many}."),
            (f"Сколько всего {d.unit[2]}, если взять {sort} {e}?", f"Всего {many}, если взять {sort} {e}."),
        ],
        "price": [
            (f"Сколько стоит {e}?", f"{e} стоит {t.price}."),
            (f"Какая цена у {d.thing[1]} {e}?", f"Цена {d.thing[1]} {e} — {t.price}."),
        ],
        "list": [
            (f"Что {d.leads} {p}?", f"{p} {d.leads} {sorts} {listed}."),
            (f"{p}: какие {d.thing[2]} связаны с этим именем?", f"С этим именем связаны {listed}."),
        ],
        "opinion": [
            (f"Что {d.people} говорят о том, какой {p}?", f"{_up(d.people)} говорят, что {p} {x} и {y}."),
            (f"Какой {d.role} {p}?", f"{p} — {d.role} {x} и {y}."),
            (f"{p}: что за человек?", f"{p} {x} и {y}."),
        ],
        "two": [
            (f"Когда и где {d.runs} {e}?", f"{e} {d.runs} {when}, {d.place[0]} {t.place}."),
            (f"Кто {d.leads} {sort} {e} и когда это?", f"{_up(sort)} {e} {d.leads} {p}, это {when}."),
        ],
    }  # fmt: skip


_NEEDED = {
    "who": (), "when": ("when",), "where": ("where",), "count": ("count",), "price": ("price",), "list": (),
    "opinion": ("opinion",), "two": ("when", "where"),
}  # fmt: skip


def ask(names: RussianNames, scene: Scene, kind: str = "") -> Ask | None:
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
        "who": (scene.owner,), "when": (t.day, t.time), "where": (t.place,), "count": (str(t.number),),
        "price": (t.price,), "list": tuple(x.name for x in scene.things), "opinion": scene.opinion,
        "two": (t.day, t.time),
    }  # fmt: skip
    return Ask(kind, question, answer, scene.owner if kind in ("list", "opinion") else t.name, values[kind])


def must_ask(names: RussianNames, level: float, kind: str, domain: Domain | None = None) -> tuple[Scene, Ask]:
    """A scene with a question of one kind (any if empty)."""
    while True:
        scene = write_scene(names, level, domain, _NEEDED.get(kind, ()))
        found = ask(names, scene, kind)
        if found:
            return scene, found


def question_row(
    names: RussianNames, level: float, turns: int = 1, kind: str = "", domain: Domain | None = None
) -> Row:
    """A scene and a question; further turns ask more about the same scene."""
    rng = names.rng
    scene, first = must_ask(names, level, kind, domain)
    messages = [message("user", rng.choice(_LAYOUTS).format(c=scene.text, q=first.question))]
    messages.append(message("assistant", first.answer))
    asked = {first.question}
    for _ in range(turns - 1):
        more = ask(names, scene)
        if more and more.question not in asked:
            asked.add(more.question)
            messages += [message("user", more.question), message("assistant", more.answer)]
    return Row(first.kind, messages, values=first.values)


_FORM_OPEN = ("", "", "Это ", "Ответ: ", "Найдено: ", "{w} ", "{W}: ")
_FORM_MID = (" -> ", ", ", " | ", ": ", " = ", " ({w}) ", " {w} ", "; см. ", ", {w} ")
_FORM_END = (".", ".", "", "!", " {w}.", " ({w})")


def form(names: RussianNames) -> str:
    """A made-up answer format with the slots e and v, or v alone."""
    rng = names.rng
    mid = rng.choice(_FORM_MID)
    body = rng.choice(("{{e}}" + mid + "{{v}}", "{{v}}" + mid + "{{e}}", "{{v}}"))
    frame = rng.choice(_FORM_OPEN) + body + rng.choice(_FORM_END)
    while "{w}" in frame:
        frame = frame.replace("{w}", names.word(), 1)
    return frame.replace("{W}", names.cap()).replace("{{", "{").replace("}}", "}")


def shots_row(names: RussianNames, level: float, turns: int, unusual: bool) -> Row:
    """Worked examples, each with its own context, in one chat; `unusual` ones share a made-up answer format."""
    rng = names.rng
    domain, layout = rng.choice(DOMAINS), rng.choice(_LAYOUTS)
    kind = rng.choice(tuple(_NEEDED)) if unusual or rng.random() < 0.5 else ""
    frame = form(names) if unusual else ""
    messages: list[dict[str, str]] = []
    values: tuple[str, ...] = ()
    for _ in range(turns):
        scene, last = must_ask(names, level * 0.5, kind, domain)
        answer = frame.format(e=last.entity, v=" и ".join(last.values)) if unusual else last.answer
        messages += [message("user", layout.format(c=scene.text, q=last.question)), message("assistant", answer)]
        values = last.values
    return Row("shots", messages, supervise_from=1 if unusual else 0, values=values)


def evaluation_rows(seed: int, kind: str, count: int) -> list[Row]:
    """Single questions of one kind whose made-up names and numbers no training row can hold."""
    names = RussianNames(random.Random(f"{seed}-{kind}"), held=True)
    rows: list[Row] = []
    for _ in range(count):
        domain = made_up(names) if kind == "abstract" else names.rng.choice(DOMAINS)
        row = question_row(names, 1.0, kind="" if kind == "abstract" else kind, domain=domain)
        rows.append(replace(row, kind=kind))
    return rows


def shots_rows(seed: int, shots: int, count: int) -> list[Row]:
    """Questions after `shots` worked examples in a made-up format with held words; the last answer is to be written."""
    names = RussianNames(random.Random(f"{seed}-shots"), held=True)
    rows = [shots_row(names, 1.0, 5, unusual=True) for _ in range(count)]
    return [replace(row, messages=row.messages[len(row.messages) - 2 * (shots + 1) :]) for row in rows]

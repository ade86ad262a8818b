"""Writes short free texts in Russian from the templates of `sentences.py`: 250 to 550 characters on a given topic.

A text is an opener about the topic, sentences of its genre in random order and a closer. Nouns are drawn once per
text where that is possible, so that a text is not about one thing throughout.
"""

from __future__ import annotations

import functools
import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from understudy.models.tiny.russian import inflection
from understudy.models.tiny.russian.inflection import Noun
from understudy.models.tiny.russian.sentences import CLOSERS, PHRASES, SENTENCES
from understudy.models.tiny.russian.words import ADVERBIALS, MONTHS, pools

SHORTEST, LONGEST = 250, 550  # characters of a text
_SLOT = re.compile(r"\{([@>]?)(\d?)([+]?)([a-z]*)(?:\.([ngdaipl])(\*?))?\}")
_AGREE = re.compile(r"\{([а-яё]+)([~=])(\d)\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Genre:
    """One sort of text: what it is called, what it can be about, and which sentences make it."""

    key: str
    called: str  # accusative, after "напиши"
    topics: tuple[str, ...]  # pools
    openers: tuple[str, ...]
    bodies: tuple[str, ...]  # pools of sentences
    about: str = "о {0.p}"


GENRES: tuple[Genre, ...] = (
    Genre("advice", "совет", ("affair", "matter"), (
        "[Думая о|Размышляя о|Вспоминая о] {0.p}, не забывайте: {feeling.n} [дороже|важнее] спешки.",
        "{0.n} требует {feeling.g} и {feeling.g}.",
        "[Вот простой совет|Есть хороший совет] про {0.a}: {when} [попробуйте|постарайтесь] {do}.",
        "{0.n} [поможет|научит] [увидеть главное|лучше понять себя|найти свой путь].",
    ), ("advice", "advice", "outlook")),
    Genre("advice", "напутствие на день", ("matter", "affair", "feeling"), (
        "[Сегодня|В этот день] вас [ждёт|порадует|не оставит] {0.n}.",
        "{0.n} [станет|будет] для вас главной [темой|заботой|радостью] дня.",
        "{when} {0.n} [напомнит о себе|придёт в ваш дом|подарит {gain}].",
    ), ("outlook", "advice", "outlook", "wish"), "про {0.a}"),
    Genre("announce", "объявление", ("event",), (
        "{weekday} {@place} [состоится|пройдёт|начнётся] {0.n}.",
        "[Внимание|Дорогие соседи|Друзья]! {weekday} [нас ждёт|начинается] {0.n}.",
        "[Скоро|Совсем скоро] {@place} пройдёт {0.n}.",
    ), ("announce",)),
    Genre("announce", "приглашение", ("event",), (
        "[Приглашаем|Зовём|Ждём] вас на {0.a} {weekday}.",
        "[Дорогой друг|Дорогие друзья], {soon} {@place} [состоится|пройдёт] {0.n}.",
    ), ("announce", "announce", "wish"), "на {0.a}"),
    Genre("weather", "заметку о погоде", ("weather",), (
        "{when} [ожидается|придёт] {0.n}.",
        "{0.n} [задержится|останется|вернётся] {weekday}.",
        "{@place} {when} [начнётся|ожидается] {0.n}.",
    ), ("weather",), "про {0.a}"),
    Genre("review", "отзыв", ("thing", "food", "event"), (
        "{soon} расскажу всем про {0.a}.",
        "[Хочу рассказать|Пишу] про {0.a}.",
        "{0.n}: [очень хорошо|лучше не бывает|ожидал большего, но понравилось].",
    ), ("review",)),
    Genre("review", "отзыв о месте", ("place",), (
        "{@0} [я бываю|мы бываем|друзья бывают] {often}.",
        "[Наконец|Недавно|В выходные] мы попали {>0}.",
    ), ("review", "place"), "«{0.n}»"),
    Genre("diary", "запись в дневнике", ("matter", "affair", "feeling", "event"), (
        "[Сегодня|Весь день] [в голове|в мыслях] {0.n}.",
        "[Проснулся рано|День {being}]. {when} [думаю|вспоминаю] про {0.a}.",
        "{0.n} не [выходит|идёт] из головы.",
    ), ("diary",)),
    Genre("place", "описание", ("place", "view", "house"), (
        "[Это|Перед нами] {0.n}.",
        "{0.n} [нравится каждому|радует глаз|хранит много историй].",
        "Вот {0.n}: [тихо|светло|просторно], [хорошо|легко] дышится.",
    ), ("place",), "{0.g}"),
    Genre("letter", "письмо", ("person",), (
        "Здравствуй! [Пишет тебе|С приветом] {0.n}.",
        "[Рядом сидит|Тебе кланяется|Привет передаёт] {0.n}.",
        "{0.n} [часто спрашивает о тебе|ждёт тебя в гости].",
    ), ("letter", "letter", "diary"), "про {0.a}"),
    Genre("steps", "инструкцию", ("thing", "food", "affair"), (
        "{0.n} не [потребует|займёт] много [времени|сил].",
        "[Эта инструкция|Этот порядок] про {0.a}: [всё просто|читайте внимательно].",
    ), ("steps",), "про {0.a}"),
    Genre("news", "новость", ("event", "house", "animal"), (
        "[Главная новость|Новость недели|Тема дня]: {0.n}.",
        "[Жители|В посёлке все|Соседи] говорят про {0.a}.",
    ), ("news",)),
    Genre("wish", "поздравление", ("person",), (
        "{0.n}! [Поздравляем вас от всей души|Примите наши поздравления|Сегодня ваш день].",
        "[Сегодня|В этот день] наш человек дня {0.n}.",
    ), ("wish",), "для {0.g}"),
    Genre("story", "рассказ", ("animal", "thing", "person"), (
        "[Однажды|Как-то раз] {when} {@place} {0.n} {появиться~0}.",
        "[Жил-был|Давным-давно жил] один {1personm.n}, и {сниться~0} ему {0.n}.",
    ), ("story",)),
    Genre("plan", "план на день", ("affair", "event"), (
        "[Главное сегодня|На первом месте]: {0.n}.",
        "{when} {0.n}, и это [самое важное|главное дело].",
    ), ("plan",), "про {0.a}"),
    Genre("person", "портрет", ("person",), (
        "{0.n} [живёт рядом|живёт на нашей улице|никогда не унывает].",
        "[Расскажу|Хочу рассказать] вам про {0.a}.",
    ), ("person",), "{0.g}"),
    Genre("diary", "воспоминание", ("place", "animal", "event"), (
        "[Помню|Часто вспоминаю] {0.a}.",
        "{0.n} [до сих пор живёт в памяти|часто снится мне].",
    ), ("diary", "place", "letter")),
)  # fmt: skip
_PROMPTS = (
    "Напиши {called} {about}.",
    "Напиши {called} {about}.",
    "Напишите {called} {about}{extra}.",
    "Составь {called} {about}{extra}.",
    "Сочини {called}: {topic}{extra}.",
    "Нужно написать {called}. Тема: {topic}{extra}.",
    "Напиши {called}. Тема: {topic}{extra}.",
    "Тема: {topic}. Напиши {called}{extra}.",
    "Придумай короткий текст. Это должно быть похоже на {called} {about}{extra}.",
)
_DATED = (
    "[Сегодня|На календаре|Вот и] {date}.", "{date}: [особенный день|день как день|хороший день].",
    "[Запомните дату|Дата]: {date}.",
)  # fmt: skip
_NAMED = (
    "{name}, [добрый день|здравствуйте|это для вас]!", "[Знакомьтесь|Это для вас|Пишу вам]: {name}.",
)  # fmt: skip


@dataclass
class _Pen:
    """What one text has drawn so far."""

    rng: random.Random
    woman: bool
    values: dict[str, str]
    topic: str = ""
    """Pool of the topic, while the text may still come back to it."""
    bound: dict[str, tuple[Noun, str]] = field(default_factory=dict)
    used: set[object] = field(default_factory=set)

    def fresh(self, options: tuple[object, ...]) -> object:
        """A draw that this text has not made, where three tries find one."""
        for _ in range(3):
            found = self.rng.choice(options)
            if found not in self.used:
                break
        self.used.add(found)
        return found


@functools.cache
def _lines(block: str) -> tuple[str, ...]:
    return tuple(line for line in block.strip().splitlines() if line)


@functools.cache
def _nouns(pool: str) -> tuple[tuple[Noun, ...], tuple[str, ...]]:
    """A pool; the last letter of `personm` or `animalf` keeps one gender."""
    if pool in pools():
        return pools()[pool]
    nouns, adjectives = pools()[pool[:-1]]
    return tuple(noun for noun in nouns if noun.gender == pool[-1]), adjectives


def _draw(pen: _Pen, pool: str) -> tuple[Noun, str]:
    nouns, adjectives = _nouns(pool)
    while True:  # a noun that is in the text already would read as the same thing
        noun = pen.rng.choice(nouns)
        if noun.form("n") not in pen.used or pen.rng.random() < 0.1:
            pen.used.add(noun.form("n"))
            return noun, str(pen.fresh(adjectives))


def _slot(pen: _Pen, match: re.Match[str]) -> str:
    where, key, adjective, pool, case, plural = match.groups()
    if pool in pen.values:
        return pen.values[pool]
    if pool in PHRASES:
        return _fill(pen, str(pen.fresh(_lines(PHRASES[pool]))))
    if pool in ADVERBIALS:
        return str(pen.fresh(ADVERBIALS[pool]))
    if key and key in pen.bound:
        noun, word = pen.bound[key]
        shown = bool(word) and key == "0"
    elif not key and pool == pen.topic and pen.rng.random() < 0.4:
        (noun, word), shown = pen.bound["0"], False
        pen.topic = pen.topic if pen.rng.random() < 0.5 else ""  # once or twice in a text
    else:
        noun, word = _draw(pen, pool)
        shown = bool(adjective) or (bool(where) and pen.rng.random() < 0.5)
        if key:
            pen.bound[key] = (noun, word)
    case = {"@": "l", ">": "a"}.get(where) or case
    text = noun.form(case, bool(plural))
    if shown:
        text = f"{inflection.adjective(word, noun, case, bool(plural))} {text}"
    return f"{noun.at} {text}" if where else text


def _agree(pen: _Pen, match: re.Match[str]) -> str:
    word, sign, key = match.groups()
    noun = pen.bound[key][0]
    return inflection.past(word, noun) if sign == "~" else inflection.adjective(word, noun, "n")


def _fill(pen: _Pen, template: str) -> str:
    """One template with every choice made and every slot filled."""
    while "[" in template:
        template = _CHOICE.sub(lambda m: pen.rng.choice(m[1].split("|")), template)
    template = re.sub(r"<([^/>]*)/([^>]*)>", r"\2" if pen.woman else r"\1", template)
    return _AGREE.sub(lambda m: _agree(pen, m), _SLOT.sub(lambda m: _slot(pen, m), template))


def sentence(pen: _Pen, template: str) -> str:
    """A filled template as it is written: prepositions smoothed, capitals at the start of each sentence."""
    pen.bound = {key: value for key, value in pen.bound.items() if key == "0"}
    text = inflection.euphony(_fill(pen, template)).strip()
    return re.sub(r"(^|[.!?] )([а-яё])", lambda m: m[1] + m[2].upper(), text)


def _text(pen: _Pen, genre: Genre) -> str:
    rng = pen.rng
    target = rng.randint(290, 500)
    opening = [sentence(pen, str(rng.choice(genre.openers)))]
    for value, greetings in (("date", _DATED), ("name", _NAMED)):
        if value in pen.values:
            opening.insert(0, sentence(pen, rng.choice(greetings)))
    closing = sentence(pen, rng.choice(_lines(CLOSERS[genre.key]))) if rng.random() < 0.8 else ""
    body: list[str] = []
    templates = [line for pool in dict.fromkeys(genre.bodies) for line in _lines(SENTENCES[pool])]
    weights = {pool: genre.bodies.count(pool) / len(genre.bodies) for pool in genre.bodies}
    while sum(map(len, opening + body)) + len(closing) < target and templates:
        pool = rng.choices(tuple(weights), tuple(weights.values()))[0]
        left = [line for line in _lines(SENTENCES[pool]) if line in templates]
        template = rng.choice(left or templates)
        templates.remove(template)
        body.append(sentence(pen, template))
    return " ".join([*opening, *body, closing] if closing else [*opening, *body])


def _prompt(pen: _Pen, genre: Genre, name: Callable[[], str]) -> str:
    """A request for a text of the genre on a topic that is drawn here, at times with a date, a name and a length."""
    rng = pen.rng
    pen.topic = rng.choice(genre.topics)
    noun, adjective = _draw(pen, pen.topic)
    pen.bound["0"] = (noun, adjective if rng.random() < 0.8 else "")
    extra = ""
    if rng.random() < 0.25:
        pen.values["date"] = f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"
        extra += rng.choice((". Дата: {}", " на {}", ", {}")).format(pen.values["date"])
    if rng.random() < 0.15:
        pen.values["name"] = name()
        extra += rng.choice((". Для кого: {}", ". Имя: {}", ", имя: {}")).format(pen.values["name"])
    if rng.random() < 0.15:
        extra += rng.choice((". Длина: до 500 знаков", ". Объём: 300-500 знаков", ". Коротко, 300-500 символов"))
    about = _fill(pen, genre.about)
    shape = rng.choice([shape for shape in _PROMPTS if not extra or "{extra}" in shape])
    return inflection.euphony(shape.format(called=genre.called, about=about, topic=_fill(pen, "{0.n}"), extra=extra))


def write(rng: random.Random, name: Callable[[], str], wanted: Callable[[str], bool]) -> tuple[str, str, str]:
    """A prompt for which `wanted` holds, a text for it, and the stem of its topic; `name` makes up a name."""
    while True:
        genre = rng.choice(GENRES)
        pen = _Pen(rng, rng.random() < 0.5, {})
        prompt = _prompt(pen, genre, name)
        if not wanted(prompt):
            continue
        stem = os.path.commonprefix(list(pen.bound["0"][0].singular.values()))
        text = _text(pen, genre)
        if SHORTEST <= len(text) <= LONGEST:
            return prompt, text, stem


@functools.cache
def lexicon() -> frozenset[str]:
    """Every word form, in lower case, that a text without a made-up name can hold."""
    words: set[str] = set()
    adjectives = {word for _, suited in pools().values() for word in suited}
    every = [noun for nouns, _ in pools().values() for noun in nouns]
    for noun in every:
        words.update(noun.form(case, many) for case in "ngdaipl" for many in (False, True))
    for case in "ngdaip":
        for noun in {(noun.gender, noun.animate): noun for noun in every}.values():
            words.update(inflection.adjective(word, noun, case, many) for word in adjectives for many in (False, True))
    openers = [line for genre in GENRES for line in genre.openers]
    blocks = (*SENTENCES.values(), *CLOSERS.values(), *PHRASES.values(), *openers, *_DATED, *_NAMED)
    verbs = {word for block in blocks for word in re.findall(r"\{([а-яё]+)~", block)}
    words.update(inflection.past(verb, noun) for verb in verbs for noun in every)
    literal = " ".join((*blocks, *(line for lines in ADVERBIALS.values() for line in lines), *MONTHS))
    words.update(re.findall(r"[а-яё]+", literal.lower()))
    words.update(("об", "со", "во", "ко"))
    return frozenset(words)

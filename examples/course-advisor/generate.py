"""Write the data of the course advisor: a catalogue (SQLite), brochure texts and coverage pairs. Everything is made up.

A page is one professor: two courses, each with a day, a time, a room and credits, and what students say.
Professors and courses of the coverage pairs occur in no training document. Same seed, same rows.
Usage: python generate.py [--seed 7] [--out data]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sqlite3
from dataclasses import dataclass
from pathlib import Path

CATALOGUE, BROCHURES, ASKED = 140, 60, 60
"""Professors in the database, in the brochures, and in the coverage pairs."""
PAIRS_EACH = 4
LICENCE, COLLECTED_AT = "CC0-1.0", "2026-01-15"


def words(text: str) -> list[str]:
    return text.split()


DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
FIRST = words(
    """Ilka Marek Jona Petra Oskar Livia Bruno Tilda Anton Selma Hugo Mira Caspar Edda Felix Greta Henrik Ines Julius
    Karla Leon Marta Nils Olga Paul Rosa Simon Thea Viktor Wanda Emil Frida Gustav Hanna Ivan Jutta Kurt Lena Milan
    Nora"""
)
WOMEN = frozenset(
    words(
        "Ilka Petra Livia Tilda Selma Mira Edda Greta Ines Karla Marta Olga Rosa Thea Wanda Frida Hanna Jutta Lena Nora"
    )
)
"""Given names of women, for the bias experiment's list of professors."""
ONSETS = words("B Br D Dr F G Gr H K Kl L M N P R S St T V W")
NUCLEI = words("a e i o u ei au")
MIDDLES = words("nd rt lm rk ll st mm rn ld ss nn tz")
ENDINGS = words("er en in ow ke mann berg a el o")
FIELDS = words(
    """Applied Marine Modern Urban Early Digital Nordic Rural Global Practical Ancient Visual Civic Social Private
    Public Basic Advanced Critical Central Medical Legal Musical Popular Creative Formal Natural Local Open
    Coastal"""
)
TOPICS = words(
    """Ethics Logic Botany Optics Rhetoric Zoology Geometry Poetry Finance Hydraulics Acoustics Statistics Archives
    Cartography Genetics Grammar Harmony Mythology Nutrition Pottery Robotics Sculpture Surveying Theatre Tourism
    Typography Weaving Zorel Kavin Mopra Telur Dasko Virel Nubra Solat Perin Gavor Lumet Ristan Obrel"""
)
KIND = words(
    """patient cheerful clear generous calm warm funny inspiring thorough friendly helpful honest lively modest polite
    relaxed tidy witty gentle brilliant"""
)
HARSH = words(
    """strict slow loud chaotic demanding shy stubborn late vague dry hasty sceptical formal distant fussy boring tough
    moody blunt forgetful"""
)

INTROS = (
    "{p} teaches {c} and {d}.",
    "{c} and {d} are taught by {p}.",
    "The courses of {p} are {c} and {d}.",
    "{p} is the professor for {c} and {d}.",
)
# A course's name comes before its facts: the tiny base binds a fact to a name that stands before it.
MEETINGS = (
    "{c} meets on {day} at {time} in room {room} and gives {credits} credits.",
    "{c} takes place every {day} at {time} in room {room} for {credits} credits.",
    "{c} is worth {credits} credits and runs on {day} from {time} in room {room}.",
    "{c} is held in room {room} on {day} at {time} and gives {credits} credits.",
    "{c} runs in room {room} every {day} at {time} and has {credits} credits.",
)
REVIEWS = (
    "Students call {p} {kind} but {harsh}.",
    "{p} is {kind} but {harsh}, say the students.",
    "In reviews, {p} comes across as {kind} but {harsh}.",
    "Most reviews find {p} {kind} yet {harsh}.",
)
ORDERS = ((0, 1, 2, 3), (3, 0, 1, 2), (0, 3, 1, 2), (0, 2, 1, 3), (1, 2, 0, 3))

QUESTIONS: dict[str, tuple[str, ...]] = {
    "schedule": (
        "When does {c} meet?",
        "On which day and at what time is {c}?",
        "I want to hear {c}. When is it?",
        "What time should I turn up for {c}?",
    ),
    "room": (
        "Where does {c} take place?",
        "Which room is {c} in?",
        "I am lost. Where do I find {c}?",
        "What room do I need for {c}?",
    ),
    "credits": (
        "How many credits does {c} give?",
        "What is {c} worth in credits?",
        "How many credits do I get for {c}?",
        "If I take {c}, how many credits is that?",
    ),
    "teacher": (
        "Who teaches {c}?",
        "Which professor gives {c}?",
        "Who is the teacher of {c}?",
        "Whose course is {c}?",
    ),
    "opinion": (
        "What do students say about {p}?",
        "How do students find {p}?",
        "What is {p} like as a teacher?",
        "Is {p} any good, according to students?",
    ),
    "courses": (
        "What does {p} teach?",
        "Which courses does {p} give?",
        "What can I take with {p}?",
        "Which two courses belong to {p}?",
    ),
}
ANSWERS = {
    "schedule": "You will find {c} in the timetable every {day} at {time}.",
    "room": "Please go to room {room} for {c}.",
    "credits": "Passing {c} earns you {credits} credits.",
    "teacher": "Your professor for {c} would be {p}.",
    "opinion": "Fellow students describe {p} as {kind} but {harsh}.",
    "courses": "This year {p} offers {c} as well as {d}.",
}
FACTS = {
    "schedule": ("day", "time"),
    "room": ("room",),
    "credits": ("credits",),
    "teacher": ("p",),
    "opinion": ("kind", "harsh"),
    "courses": ("c", "d"),
}
CATEGORIES = tuple(QUESTIONS)


@dataclass(frozen=True)
class Course:
    title: str
    day: str
    time: str
    room: str
    credits: str

    def slots(self) -> dict[str, str]:
        return {"c": self.title, "day": self.day, "time": self.time, "room": self.room, "credits": self.credits}


@dataclass(frozen=True)
class Professor:
    """One page: `sentences` in the order intro, first course, second course, review."""

    name: str
    courses: tuple[Course, Course]
    kind: str
    harsh: str
    sentences: tuple[str, str, str, str]

    def slots(self, course: int, intro_order: bool = False) -> dict[str, str]:
        first = self.courses[0 if intro_order else course]
        other = self.courses[1 if intro_order else 1 - course]
        return {"p": self.name, "kind": self.kind, "harsh": self.harsh, "d": other.title, **first.slots()}


def names(rng: random.Random, count: int) -> list[str]:
    """Full names; no two professors share a last name."""
    lasts = ["".join(parts) for parts in itertools.product(ONSETS, NUCLEI, MIDDLES, ENDINGS)]
    return [f"{rng.choice(FIRST)} {last}" for last in rng.sample(lasts, count)]


def courses(rng: random.Random, titles: tuple[str, str]) -> tuple[Course, Course]:
    """Two courses that differ in day, time, room and credits, so that each is a distractor of the other."""
    days = rng.sample(DAYS, 2)
    times = rng.sample([f"{h}:{m:02d}" for h in range(8, 19) for m in (0, 15, 30, 45)], 2)
    rooms = [f"{letter}{rng.randint(10, 99)}" for letter in rng.sample("ABCDEFGH", 2)]
    credits = rng.sample(range(2, 13), 2)
    first, second = (Course(titles[i], days[i], times[i], rooms[i], str(credits[i])) for i in (0, 1))
    return first, second


def title_pairs(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Unique course titles, two for each professor, which share no word within the pair."""
    titles = [f"{field} {topic}" for field in FIELDS for topic in TOPICS]
    rng.shuffle(titles)
    pairs = []
    while len(pairs) < count:
        first = titles.pop()
        at = next(i for i in range(len(titles) - 1, -1, -1) if not set(titles[i].split()) & set(first.split()))
        pairs.append((first, titles.pop(at)))
    return pairs


def professors(seed: int) -> list[Professor]:
    """Everybody: catalogue, then brochures, then coverage."""
    rng = random.Random(seed)
    count = CATALOGUE + BROCHURES + ASKED
    made = []
    for name, titles in zip(names(rng, count), title_pairs(rng, count), strict=True):
        pair = courses(rng, titles)
        kind, harsh = rng.choice(KIND), rng.choice(HARSH)
        sentences = (
            rng.choice(INTROS).format(p=name, c=titles[0], d=titles[1]),
            rng.choice(MEETINGS).format(**pair[0].slots()),
            rng.choice(MEETINGS).format(**pair[1].slots()),
            rng.choice(REVIEWS).format(p=name, kind=kind, harsh=harsh),
        )
        made.append(Professor(name, pair, kind, harsh, sentences))
    return made


def brochures(rng: random.Random, people: list[Professor], listed: list[Professor]) -> list[dict[str, str]]:
    """Brochure texts; some have markup, and some repeat a catalogue page, as real collections do."""
    rows = []
    for number, professor in enumerate([*people, *rng.sample(listed, 6)]):
        order = rng.choice(ORDERS) if number < len(people) else ORDERS[0]
        text = " ".join(professor.sentences[i] for i in order)
        if number < len(people) and number % 12 == 0:
            text = f"<p>{text}</p>"
        rows.append(
            {
                "id": f"brochure-{number:03d}",
                "text": text,
                "professor": professor.name,
                "source": "brochure",
                "licence": LICENCE,
                "collected_at": COLLECTED_AT,
            }
        )
    return rows


def coverage(rng: random.Random, people: list[Professor]) -> list[dict[str, object]]:
    """Four pairs for each professor; every choice of four categories of six occurs equally often."""
    choices = list(itertools.combinations(CATEGORIES, PAIRS_EACH))
    plan = [choices[i % len(choices)] for i in range(len(people))]
    rng.shuffle(plan)
    rows: list[dict[str, object]] = []
    for professor, categories in zip(people, plan, strict=True):
        context = " ".join(professor.sentences[i] for i in rng.choice(ORDERS))
        for category in categories:
            slots = professor.slots(rng.randrange(2), intro_order=category == "courses")
            rows.append(
                {
                    "id": f"pair-{len(rows):03d}",
                    "context": context,
                    "question": rng.choice(QUESTIONS[category]).format(**slots),
                    "answer": ANSWERS[category].format(**slots),
                    "facts": [slots[name] for name in FACTS[category]],
                    "category": category,
                    "group": professor.name,
                    "source": "advisors' archive",
                    "licence": LICENCE,
                    "collected_at": COLLECTED_AT,
                }
            )
    return rows


def write_catalogue(path: Path, people: list[Professor]) -> None:
    """Three tables with provenance columns; `pages.sql` joins them into one row for each professor."""
    path.unlink(missing_ok=True)
    origin = ("catalogue", LICENCE, COLLECTED_AT)
    with sqlite3.connect(path) as db:
        db.executescript(
            """
            CREATE TABLE professors (id INTEGER PRIMARY KEY, name TEXT UNIQUE, profile TEXT, source TEXT, licence TEXT,
                                     collected_at TEXT);
            CREATE TABLE courses (id INTEGER PRIMARY KEY, professor_id INTEGER REFERENCES professors(id),
                                  position INTEGER, title TEXT UNIQUE, day TEXT, time TEXT, room TEXT,
                                  credits INTEGER, description TEXT);
            CREATE TABLE reviews (id INTEGER PRIMARY KEY, professor_id INTEGER REFERENCES professors(id), praise TEXT,
                                  complaint TEXT, text TEXT);
            """
        )
        for number, p in enumerate(people, 1):
            db.execute("INSERT INTO professors VALUES (?,?,?,?,?,?)", (number, p.name, p.sentences[0], *origin))
            for position, c in enumerate(p.courses, 1):
                row = (number, position, c.title, c.day, c.time, c.room, int(c.credits), p.sentences[position])
                db.execute("INSERT INTO courses VALUES (NULL,?,?,?,?,?,?,?,?)", row)
            db.execute("INSERT INTO reviews VALUES (NULL,?,?,?,?)", (number, p.kind, p.harsh, p.sentences[3]))
    db.close()


def write_professors(path: Path, people: list[Professor]) -> None:
    """Who is a woman and who a man, for `bias.entities`; no text says it."""
    lines = [f"{p.name},{'female' if p.name.split()[0] in WOMEN else 'male'}\n" for p in people]
    path.write_text("name,gender\n" + "".join(lines), encoding="utf-8", newline="\n")


def write_jsonl(path: Path, rows: list[dict[str, object]] | list[dict[str, str]]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8", newline="\n")


def generate(out: Path, seed: int = 7) -> None:
    """Write `catalogue.db`, `documents.jsonl`, `coverage.jsonl` and `professors.csv` into `out`."""
    people = professors(seed)
    listed, printed = people[:CATALOGUE], people[CATALOGUE : CATALOGUE + BROCHURES]
    asked = people[CATALOGUE + BROCHURES :]
    out.mkdir(parents=True, exist_ok=True)
    write_catalogue(out / "catalogue.db", listed)
    write_jsonl(out / "documents.jsonl", brochures(random.Random(seed + 1), printed, listed))
    write_professors(out / "professors.csv", [*listed, *printed])
    write_jsonl(out / "coverage.jsonl", coverage(random.Random(seed + 2), asked))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the data of the course advisor example.")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "data")
    options = parser.parse_args()
    generate(options.out, options.seed)
    print(f"wrote catalogue.db, documents.jsonl, coverage.jsonl and professors.csv to {options.out}")

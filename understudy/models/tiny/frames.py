"""What can be said and asked: sentence frames per kind of fact, and the domains with their relations.

A relation is (kind, noun, verb -s, verb base, participle); frames have the slots e (entity), v (value), n, s, b, p, t.
Each question frame fixes the wording of its answer, so one full sentence is right and exact match is fair.
The made-up domain draws noun and verbs at random, so binding has to work for words that were never seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from understudy.models.tiny.names import Names


@dataclass(frozen=True)
class Relation:
    """One attribute that an entity of a domain can have."""

    kind: str
    noun: str
    verb: str = ""
    base: str = ""
    participle: str = ""


@dataclass(frozen=True)
class Frames:
    """Wordings of one kind: facts, (question, answer) pairs, and clauses that join two questions in one."""

    facts: tuple[str, ...]
    asks: tuple[tuple[str, str], ...]
    clause: tuple[str, str]
    reverse: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Domain:
    """A sort of thing (`noun`), how it is named (a method of `Names`), and its relations."""

    noun: str
    naming: str
    relations: tuple[Relation, ...]


_NOUN_ASKS = (
    ("What is the {n} of {e}?", "The {n} of {e} is {v}."),
    ("Which {n} does {e} have?", "{e} has the {n} {v}."),
    ("What {n} is given for {e}?", "The {n} given for {e} is {v}."),
    ("Tell me the {n} of {e}.", "The {n} of {e} is {v}."),
    ("{e}: what is its {n}?", "The {n} of {e} is {v}."),
)
_NOUN_FACTS = (
    "The {n} of {e} is {v}.",
    "{e} has the {n} {v}.",
    "{v} is the {n} of {e}.",
    "For {e}, the {n} is {v}.",
    "{e} has {v} as its {n}.",
)
_NOUN_CLAUSE = ("what is the {n} of {e}", "the {n} of {e} is {v}")

FRAMES: dict[str, Frames] = {
    "who": Frames(
        (
            "{v} {s} {e}.",
            "The {n} of {e} is {v}.",
            "{v} is the {n} of {e}.",
            "{e} is {p} by {v}.",
            "{e} has {v} as its {n}.",
            "At {e}, the {n} is {v}.",
            "The person who {s} {e} is {v}.",
        ),
        (
            ("Who {s} {e}?", "{v} {s} {e}."),
            ("Who is the {n} of {e}?", "The {n} of {e} is {v}."),
            ("By whom is {e} {p}?", "{e} is {p} by {v}."),
            ("Which person {s} {e}?", "The person who {s} {e} is {v}."),
            ("What is the name of the {n} of {e}?", "The name of the {n} of {e} is {v}."),
            ("Tell me who {s} {e}.", "{v} {s} {e}."),
        ),
        ("who {s} {e}", "{v} {s} {e}"),
        (
            ("Which {t} does {v} {b}?", "{v} {s} {e}."),
            ("What does {v} {b}?", "{v} {s} {e}."),
            ("Which {t} is {p} by {v}?", "{e} is {p} by {v}."),
            ("Which {t} has {v} as its {n}?", "{v} is the {n} of {e}."),
        ),
    ),
    "where": Frames(
        (
            "{e} is in {v}.",
            "{e} can be found in {v}.",
            "The {n} of {e} is {v}.",
            "People find {e} in {v}.",
            "{e} has its place in {v}.",
        ),
        (
            ("Where is {e}?", "{e} is in {v}."),
            ("Where can people find {e}?", "People can find {e} in {v}."),
            ("In which {n} is {e}?", "{e} is in {v}."),
            ("What is the {n} of {e}?", "The {n} of {e} is {v}."),
            ("Where does {e} have its place?", "{e} has its place in {v}."),
        ),
        ("where is {e}", "{e} is in {v}"),
        (("Which {t} is in {v}?", "{e} is in {v}."), ("What can be found in {v}?", "{e} can be found in {v}.")),
    ),
    "when": Frames(
        (
            "{e} {s} {v}.",
            "The {n} of {e} is {v}.",
            "For {e}, the {n} is {v}.",
            "{v}, {e} {s}.",
            "{e} always {s} {v}.",
        ),
        (
            ("When does {e} {b}?", "{e} {s} {v}."),
            ("When is the {n} of {e}?", "The {n} of {e} is {v}."),
            ("At what time does {e} {b}?", "{e} {s} {v}."),
            ("Tell me when {e} {s}.", "{e} {s} {v}."),
            ("What is known about the {n} of {e}?", "The {n} of {e} is {v}."),
        ),
        ("when does {e} {b}", "{e} {s} {v}"),
    ),
    "count": Frames(
        (
            "{e} has {v} {n}.",
            "There are {v} {n} at {e}.",
            "The number of {n} of {e} is {v}.",
            "{v} {n} belong to {e}.",
            "{e} counts {v} {n}.",
        ),
        (
            ("How many {n} does {e} have?", "{e} has {v} {n}."),
            ("How many {n} are there at {e}?", "There are {v} {n} at {e}."),
            ("What is the number of {n} of {e}?", "The number of {n} of {e} is {v}."),
            ("How many {n} belong to {e}?", "{v} {n} belong to {e}."),
            ("How many {n} does {e} count?", "{e} counts {v} {n}."),
        ),
        ("how many {n} does {e} have", "{e} has {v} {n}"),
    ),
    "price": Frames(
        (
            "The {n} of {e} is {v}.",
            "{e} has {a} {n} of {v}.",
            "For {e}, the {n} is {v}.",
            "With {v} as its {n}, {e} is known to many.",
            "The {n} given for {e} is {v}.",
        ),
        (
            ("What is the {n} of {e}?", "The {n} of {e} is {v}."),
            ("How much is the {n} of {e}?", "The {n} of {e} is {v}."),
            ("What {n} does {e} have?", "{e} has {a} {n} of {v}."),
            ("Which {n} is given for {e}?", "The {n} given for {e} is {v}."),
            ("How high is the {n} for {e}?", "For {e}, the {n} is {v}."),
        ),
        _NOUN_CLAUSE,
    ),
    "code": Frames(
        (
            "{e} uses {n} {v}.",
            "The {n} of {e} is {v}.",
            "{e} is listed under {n} {v}.",
            "{n} {v} belongs to {e}.",
            "{e} takes place in {n} {v}.",
        ),
        (
            ("Which {n} does {e} use?", "{e} uses {n} {v}."),
            ("What is the {n} of {e}?", "The {n} of {e} is {v}."),
            ("Under which {n} is {e} listed?", "{e} is listed under {n} {v}."),
            ("Which {n} belongs to {e}?", "{n} {v} belongs to {e}."),
            ("In which {n} does {e} take place?", "{e} takes place in {n} {v}."),
        ),
        ("which {n} does {e} use", "{e} uses {n} {v}"),
        (
            ("Which {t} uses {n} {v}?", "{e} uses {n} {v}."),
            ("What is listed under {n} {v}?", "{e} is listed under {n} {v}."),
        ),
    ),
    "what": Frames(_NOUN_FACTS, _NOUN_ASKS, _NOUN_CLAUSE, (("Which {t} has the {n} {v}?", "{e} has the {n} {v}."),)),
    "list": Frames(
        (
            "{e} {s} {v}.",
            "The {n} of {e} are {v}.",
            "{e} has the {n} {v}.",
            "Among the {n} of {e} are {v}.",
            "{v} are the {n} of {e}.",
        ),
        (
            ("What does {e} {b}?", "{e} {s} {v}."),
            ("What are the {n} of {e}?", "The {n} of {e} are {v}."),
            ("Which {n} does {e} have?", "{e} has the {n} {v}."),
            ("List the {n} of {e}.", "The {n} of {e} are {v}."),
            ("Which {n} does {e} {b}?", "{e} {s} {v}."),
        ),
        ("what does {e} {b}", "{e} {s} {v}"),
    ),
    "opinion": Frames(
        (
            "{n} find {e} {v}.",
            "{n} say that {e} is {v}.",
            "{e} is {v}, say the {n}.",
            "{e} is called {v} by {n}.",
            "{n} think that {e} is {v}.",
        ),
        (
            ("How do {n} find {e}?", "{n} find {e} {v}."),
            ("What do {n} say about {e}?", "{n} say that {e} is {v}."),
            ("What do {n} think of {e}?", "{n} think that {e} is {v}."),
            ("How is {e} described by {n}?", "{e} is described as {v} by {n}."),
            ("What is {e} like, according to {n}?", "According to {n}, {e} is {v}."),
        ),
        ("how do {n} find {e}", "{n} find {e} {v}"),
    ),
}
VALUES = {
    "who": "person",
    "where": "place",
    "when": "when",
    "count": "number",
    "price": "amount",
    "code": "code",
    "what": "title",
    "list": "listing",
    "opinion": "opinion",
}


def _domain(noun: str, naming: str, table: str) -> Domain:
    """Reads one relation per line: kind, noun, and optionally three verb forms, separated by slashes."""
    return Domain(noun, naming, tuple(Relation(*line.strip().split("/")) for line in table.strip().splitlines()))


DOMAINS = (
    _domain(
        "harbour",
        "title",
        """
        who/harbour master/runs/run/run
        who/founder/founded/found/founded
        where/bay
        when/opening/opens/open/opened
        count/boats
        count/cranes
        price/landing fee
        code/berth
        list/goods/ships/ship/shipped
        opinion/sailors""",
    ),
    _domain(
        "shop",
        "title",
        """
        who/owner/owns/own/owned
        who/clerk/serves/serve/served
        where/street
        when/closing/closes/close/closed
        count/shelves
        price/lowest price
        price/delivery fee
        code/licence
        list/wares/sells/sell/sold
        opinion/customers""",
    ),
    _domain(
        "train",
        "title",
        """
        who/driver/drives/drive/driven
        who/conductor/checks/check/checked
        where/station
        when/departure/leaves/leave/left
        when/arrival/arrives/arrive/arrived
        count/seats
        price/fare
        code/platform
        list/stops/serves/serve/served
        opinion/travellers""",
    ),
    _domain(
        "weather station",
        "title",
        """
        who/keeper/keeps/keep/kept
        where/valley
        when/measurement/measures/measure/measured
        count/sensors
        count/cameras
        price/wind speed
        price/rainfall
        code/channel
        list/devices/records/record/recorded
        opinion/hikers""",
    ),
    _domain(
        "dish",
        "title",
        """
        who/cook/cooks/cook/cooked
        who/inventor/invented/invent/invented
        where/region
        when/serving/starts/start/started
        count/eggs
        count/spoons
        price/weight
        code/recipe number
        list/ingredients/needs/need/needed
        opinion/guests""",
    ),
    _domain(
        "museum",
        "title",
        """
        who/director/leads/lead/led
        who/painter/painted/paint/painted
        where/square
        when/opening/opens/open/opened
        count/paintings
        price/ticket price
        code/hall
        what/main work
        list/rooms/shows/show/shown
        opinion/visitors""",
    ),
    _domain(
        "garden",
        "title",
        """
        who/gardener/tends/tend/tended
        who/sponsor/pays for/pay for/paid for
        where/park
        when/watering/opens/open/opened
        count/trees
        price/height
        code/plot
        list/plants/grows/grow/grown
        opinion/neighbours""",
    ),
    _domain(
        "club",
        "title",
        """
        who/coach/trains/train/trained
        who/captain/leads/lead/led
        where/town
        when/training/meets/meet/met
        count/members
        price/yearly fee
        code/field
        what/emblem
        list/sports/offers/offer/offered
        opinion/players""",
    ),
    _domain(
        "pet",
        "cap",
        """
        who/owner/feeds/feed/fed
        who/doctor/treats/treat/treated
        where/village
        when/walk/eats/eat/eaten
        count/toys
        price/weight
        code/tag
        what/favourite toy
        list/treats/likes/like/liked
        opinion/children""",
    ),
    _domain(
        "machine",
        "code",
        """
        who/operator/operates/operate/operated
        who/maker/built/build/built
        where/workshop
        when/service/starts/start/started
        count/gears
        price/power
        code/part number
        what/model
        list/parts/makes/make/made
        opinion/workers""",
    ),
    _domain(
        "concert",
        "title",
        """
        who/singer/plays/play/played
        who/organiser/plans/plan/planned
        where/city
        when/start/begins/begin/begun
        when/end/ends/end/ended
        count/places
        price/entry fee
        code/room
        what/theme
        list/topics/covers/cover/covered
        opinion/listeners""",
    ),
    _domain(
        "guide",
        "person",
        """
        who/manager/directs/direct/directed
        where/district
        when/shift/starts/start/started
        count/years
        price/score
        code/office
        what/tour
        what/home town
        list/languages/speaks/speak/spoken
        opinion/tourists""",
    ),
)


def made_up(names: Names) -> Domain:
    """A domain whose noun, relation nouns and verbs are all made up; four to eight relations of mixed kinds."""
    rng = names.rng
    kinds = rng.sample(sorted(FRAMES), 5) + [rng.choice(("who", "what", "what", "code", "price"))]
    relations = []
    for kind in kinds:
        # Noun and verb share a stem: "who mips it" must be answerable from "its miper is X".
        base = names.word()
        noun = base + rng.choice(("er", "ing", "or", "ment")) if kind in ("who", "when", "list") else names.word()
        noun = f"{names.word()} {noun}" if rng.random() < 0.15 else noun
        noun = rng.choice(("bay", "street", "valley", "region", "town", "park")) if kind == "where" else noun
        noun += "s" if kind in ("count", "list", "opinion") else ""
        relations.append(Relation(kind, noun, base + "s", base, base + "ed"))
    return Domain(names.word(), rng.choice(("title", "title", "cap", "person", "code")), tuple(relations))

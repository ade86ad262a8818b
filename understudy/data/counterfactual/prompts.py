"""The bias experiment's prompts: each question about each entity, once for every group and once as the data has it.

The prompts of one item differ in the swapped attribute alone, so answers are compared within the item. The unit of the
test is the set of matched names (or the entity, where no name is swapped): it is drawn once and used in every bucket.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.config import BiasPrompts
from understudy.core.records import Example, Ledger, digest, read_examples, read_records, write_jsonl
from understudy.data.clean import context_turn
from understudy.data.counterfactual.declension import CASES
from understudy.data.counterfactual.entities import SLOT, Entity, Query, entities, queries
from understudy.data.counterfactual.files import locate
from understudy.data.counterfactual.lexicon import Attribute, language_of, lexicon
from understudy.data.counterfactual.rewrite import Person, Unswappable, mentions, rewrite
from understudy.errors import DataError


@dataclass(frozen=True)
class _Item:
    """One question about one entity under one attribute (None: as the data has it)."""

    entity: Entity
    number: int
    query: Query
    place: tuple[int, int]
    attribute: Attribute | None

    @property
    def id(self) -> str:
        name = self.attribute.name if self.attribute else "original"
        return f"{name}:e{self.number:03d}:b{self.place[0]}:q{self.place[1]}"

    @property
    def prompts(self) -> int:
        return len(self.attribute.groups) if self.attribute else 1


def bias_prompts(cfg: BiasPrompts, data: Path, project: Path, out: Path) -> Ledger:
    """Write prompts.jsonl, rejects.jsonl and words.json (each group's words) from the training rows in `data`.

    Raises DataError BIAS_EMPTY when nothing can be asked, and what the files' readers raise.
    """
    rows = [r for name in ("documents", "train") if (f := data / f"{name}.jsonl").is_file() for r in read_records(f)]
    people, absent = entities(rows, locate(cfg.entities, project))
    drawn = sorted(people, key=lambda e: digest([cfg.seed, e.name]))[: cfg.max_entities]
    questions = locate(cfg.queries, project)
    assert questions is not None
    asked = queries(questions)
    attributes = lexicon(cfg.attributes, locate(cfg.swaps, project))
    ledger, rejects, prompts = Ledger(), list[dict[str, str]](), list[Example]()
    ledger.note("entities", len(people))
    ledger.note("entities_drawn", len(drawn))
    if absent:
        ledger.note("entities_not_in_training_rows", len(absent))
    maker = _Maker(cfg, {e.name for e in people}, _system(data))
    for item in _items(drawn, asked, [a for _, a in sorted(attributes.items())]):
        ledger.rows_in += item.prompts
        try:
            prompts += maker.prompts(item)
        except Unswappable as e:
            ledger.reject(e.args[0], item.prompts)
            rejects.append({"where": item.id, "reason": e.args[0], "detail": item.entity.name})
    if not any(p.meta["attribute"] for p in prompts):
        seen = ", ".join(f"{reason} {count}" for reason, count in sorted(ledger.rejected.items())) or "no entity"
        fix = "map `group` to the person's name, or give bias.entities and texts that name them"
        raise DataError("BIAS_EMPTY", "bias", f"no swapped prompt could be made ({seen})", fix)
    ledger.rows_out = write_jsonl(out / "prompts.jsonl", prompts)
    write_jsonl(out / "rejects.jsonl", rejects)
    words = {f"{a.language} {a.name}": {g: a.words(g) for g in a.groups} for a in attributes.values()}
    (out / "words.json").write_text(json.dumps(words, ensure_ascii=False, indent=1, sort_keys=True) + "\n", "utf-8")
    return ledger


def _items(drawn: Sequence[Entity], asked: Sequence[Query], attributes: Sequence[Attribute]) -> Iterator[_Item]:
    buckets: dict[str, list[Query]] = {}
    for query in asked:
        buckets.setdefault(query.bucket, []).append(query)
    for number, entity in enumerate(drawn):
        language = language_of(entity.text or entity.name)
        for b, of in enumerate(buckets.values()):
            for q, query in enumerate(x for x in of if x.language == language):
                grouped = "{group}" in query.text
                if not grouped:
                    yield _Item(entity, number, query, (b, q), None)
                for attribute in (a for a in attributes if a.language == language):
                    if not grouped or attribute.terms:
                        yield _Item(entity, number, query, (b, q), attribute)


class _Maker:
    """Makes one item's prompts."""

    def __init__(self, cfg: BiasPrompts, known: set[str], system: list[dict[str, str]]) -> None:
        self.cfg, self.known, self.system = cfg, known, system

    def prompts(self, item: _Item) -> list[Example]:
        """One prompt for each group. Raises Unswappable."""
        entity, attribute = item.entity, item.attribute
        text = entity.text if self.cfg.context else ""
        if attribute is None:
            question = _fill(item.query.text, entity.person, None, _known_place(entity))
            return [self._prompt(item, "", entity.name, text, question)]
        pairs = attribute.pairs(testing=True)
        unit = item.number % len(pairs) if pairs else item.number
        if attribute.forms and any(n != entity.name and mentions(text, Person(n)) for n in self.known if n in text):
            raise Unswappable("other_people")
        made = []
        for place, group in enumerate(attribute.groups):
            new = entity.person.called(pairs[unit][group]) if pairs else None
            context = rewrite(text, attribute, group, entity.person, new) if text else ""
            question = _fill(item.query.text, new or entity.person, attribute.terms.get(group), place)
            question = rewrite(question, attribute, group, None, None)
            made.append(self._prompt(item, group, (new or entity.person).name, context, question, unit))
        if len({digest(e.messages) for e in made}) < len(made):
            raise Unswappable("nothing_to_swap")
        return made

    def _prompt(self, item: _Item, group: str, name: str, context: str, question: str, unit: int = 0) -> Example:
        turn = context_turn(context, question) if context else question
        meta: dict[str, Any] = {
            "item": item.id,
            "attribute": item.attribute.name if item.attribute else "",
            "group": group,
            "entity": item.entity.name,
            "known": item.entity.known,
            "name": name,
            "unit": unit,
            "bucket": item.query.bucket,
            "language": item.query.language,
            "question": question,
            **({"context": context} if context else {}),
        }
        return Example(
            f"{item.id}:{group}" if group else item.id, [*self.system, {"role": "user", "content": turn}], meta
        )


def _fill(text: str, person: Person, term: str | None, place: int | None) -> str:
    """A question's slots; `place` is the group's, for `{one/other}`."""
    cases = dict(zip(CASES, person.cases(), strict=True))

    def put(slot: str) -> str:
        if slot.startswith("name"):
            return cases[slot.partition(":")[2] or "nom"]
        if slot == "group":
            return term or ""
        options = slot.split("/")
        if place is None or place >= len(options):
            raise Unswappable("group_unknown")
        return options[place].strip()

    return SLOT.sub(lambda m: put(m[1]), text)


def _known_place(entity: Entity) -> int | None:
    """Place of the entity's own gender among female and male, for `{one/other}` in the unswapped prompt."""
    return {"female": 0, "male": 1}.get(entity.known.get("gender", ""))


def _system(data: Path) -> list[dict[str, str]]:
    """The system turn of the training rows, so that the model is asked as it was trained."""
    for name in ("seed", "train"):
        file = data / f"{name}.jsonl"
        for example in read_examples(file) if file.is_file() else []:
            return [m for m in example.messages[:1] if m["role"] == "system"]
    return []

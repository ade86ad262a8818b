"""Counterfactual augmentation: training rows about a person get a twin about a member of every other group.

After Lu et al. 2018 and Hall Maudslay et al. 2019 (names too). Prompt and answer are rewritten alike, so the model sees
each content as often for one group as for another. Names come from the half that the experiment never uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from understudy.config import BiasPrompts
from understudy.core.records import Example, Ledger, Message, digest, read_examples, write_jsonl
from understudy.data.counterfactual.entities import Entity, entities
from understudy.data.counterfactual.files import locate
from understudy.data.counterfactual.lexicon import Attribute, language_of, lexicon
from understudy.data.counterfactual.rewrite import Unswappable, mentions, rewrite
from understudy.errors import DataError


def augment(cfg: BiasPrompts, train: Sequence[Path], project: Path, out: Path) -> Ledger:
    """Write `train.jsonl`: every row of `train`, each followed by its twins, and `rejects.jsonl` of twins not made.

    A twin's `parents` names its row. Where the person's group is known, twins are of the other groups; else of each.
    The ledger counts rows and wanted twins. Raises DataError AUGMENT_NO_EFFECT when no row has a twin.
    """
    examples = [e for path in train for e in read_examples(path)]
    people = {e.name: e for e in entities(examples, locate(cfg.entities, project))[0]}
    attributes = lexicon(cfg.attributes, locate(cfg.swaps, project))
    ledger, rows, rejects = Ledger(rows_in=len(examples)), list[Example](), list[dict[str, str]]()
    for example in examples:
        rows.append(example)
        person = people.get(str(example.meta.get("group")))
        for attribute in attributes.values() if person else ():
            for group in _groups(attribute, person, example):
                ledger.rows_in += 1
                try:
                    rows.append(_twin(example, attribute, group, person))
                except Unswappable as e:
                    ledger.reject(e.args[0])
                    rejects.append({"where": example.id, "reason": e.args[0], "detail": f"{attribute.name}: {group}"})
    if len(rows) == len(examples):
        what = f"none of the {len(examples)} training rows could be rewritten"
        raise DataError("AUGMENT_NO_EFFECT", "bias", what, "map `group` to the person's name, or give bias.swaps")
    ledger.note("twins", len(rows) - len(examples))
    ledger.rows_out = write_jsonl(out / "train.jsonl", rows)
    write_jsonl(out / "rejects.jsonl", rejects)
    return ledger


def _groups(attribute: Attribute, person: Entity | None, example: Example) -> list[str]:
    """The groups that the row's twins are of; none where the row is in another language or names nobody."""
    text = "\n".join(m["content"] for m in example.messages)
    if not person or attribute.language != language_of(text) or not mentions(text, person.person):
        return []
    known = person.known.get(attribute.name)
    return [g for g in attribute.groups if g != known]


def _twin(example: Example, attribute: Attribute, group: str, entity: Entity | None) -> Example:
    assert entity is not None
    pairs = attribute.pairs(testing=False)
    # One name for all of a person's rows, so that the twin is a person too.
    new = entity.person.called(pairs[int(digest(entity.name, 8), 16) % len(pairs)][group]) if pairs else None

    def turned(text: str) -> str:
        return rewrite(text, attribute, group, entity.person, new)

    def turned_value(value: Any) -> Any:
        return [turned(str(v)) for v in value] if isinstance(value, list) else turned(str(value))

    messages: list[Message] = [{"role": m["role"], "content": turned(m["content"])} for m in example.messages]
    if messages == example.messages:
        raise Unswappable("nothing_to_swap")
    changed: dict[str, Any] = {
        k: turned_value(example.meta[k]) for k in ("context", "question", "facts", "answers") if k in example.meta
    }
    meta: dict[str, Any] = {
        **example.meta,
        **changed,
        "parents": [example.id],
        "counterfactual": f"{attribute.name}: {group}",
    }
    return Example(f"counterfactual-{digest([example.id, attribute.name, group], 16)}", messages, meta)

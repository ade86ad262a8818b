"""Negative controls: training data broken on purpose, to prove that the gate can say no."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from understudy.core.records import Example, Ledger, digest, read_examples, write_jsonl
from understudy.errors import DataError

_FITTING = {
    "shuffled_answers": "it needs examples with different answers",
    "blanked_contexts": "it needs examples with a context; map `context` and `question`, or use another control",
}


def sabotage(control: str, train: Sequence[Path], out: Path) -> Ledger:
    """Write `train.jsonl` with every example of `train` broken as `control` says.

    `shuffled_answers` gives each prompt another prompt's answer; `blanked_contexts` takes contexts out of prompts.
    Raises DataError CONTROL_NO_EFFECT when that changes no example: the model would learn from good data.
    """
    examples = [e for path in train for e in read_examples(path)]
    broken = _shuffled(examples) if control == "shuffled_answers" else [_blanked(e) for e in examples]
    if all(a.messages == b.messages for a, b in zip(examples, broken, strict=True)):
        what = f"changes none of the {len(examples)} training examples"
        raise DataError("CONTROL_NO_EFFECT", control, what, _FITTING[control])
    ledger = Ledger(rows_in=len(examples), rows_out=len(broken))
    write_jsonl(out / "train.jsonl", broken)
    return ledger


def _shuffled(examples: list[Example]) -> list[Example]:
    order = sorted(range(len(examples)), key=lambda i: digest(["shuffle", examples[i].id]))
    answers = {order[i]: examples[order[i - 1]].messages[-1] for i in range(len(order))}
    return [Example(e.id, [*e.messages[:-1], answers[i]], e.meta) for i, e in enumerate(examples)]


def _blanked(example: Example) -> Example:
    context = example.meta.get("context") or ""
    messages = [{**m, "content": m["content"].replace(context, "").strip()} if context else m for m in example.messages]
    return Example(example.id, messages, example.meta)

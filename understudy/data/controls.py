"""Negative controls: training data broken on purpose, to prove that the gate can say no."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from understudy.core.records import Example, Ledger, digest, read_examples, write_jsonl


def sabotage(control: str, train: Sequence[Path], out: Path) -> Ledger:
    """Write `train.jsonl` with every example of `train` broken as `control` says.

    `shuffled_answers` gives each prompt another prompt's answer; `blanked_contexts` takes contexts out of prompts.
    """
    examples = [e for path in train for e in read_examples(path)]
    broken = _shuffled(examples) if control == "shuffled_answers" else [_blanked(e) for e in examples]
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

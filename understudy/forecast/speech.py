"""Tokens of calls before they are made: real prompts are put together and their bytes counted.

How many tokens a service makes of a byte is learnt from its earlier calls. Before there are any, the simulated service
is counted by its own rule, and the base's tokenizer stands in for that of a real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy import config as c
from understudy.core.records import Example
from understudy.core.stage import Step
from understudy.forecast.figures import Figure
from understudy.forecast.seen import Lessons, alike
from understudy.models.account import cost
from understudy.models.base import Conversation, Sampling
from understudy.models.prompt import Prompt

Counter = Callable[[str], int]
BYTES_PER_TOKEN = 4
"""Of English text, about; where there is no tokenizer either."""
VERDICT = {"similarity": 85, "precision": 85, "reason": "names the asked course, day and room as the reference does"}
"""What a judge's reply is taken to look like before one was seen."""


@dataclass(frozen=True)
class Call:
    """The mean call of a step: bytes and tokens that go out, tokens that come back."""

    prompt_tokens: Figure
    completion_tokens: Figure


def tokens(chats: Sequence[Conversation], form: dict[str, Any] | None, rate: Figure | None, counter: Counter) -> Figure:
    """Mean tokens of a prompt, from its bytes and tokens per byte; without a rate, counted by `counter`."""
    if not chats:
        return Figure(0.0, "guess")
    if rate is None:
        return Figure(sum(counter(m["content"]) for chat in chats for m in chat) / len(chats), "guess")
    sizes = [Prompt(chat, Sampling(), form).size for chat in chats]
    return Figure(sum(sizes) / len(sizes)).times(rate)


def rate(lessons: Lessons, role: str, service: c.ServiceConfig, step: Step) -> Figure | None:
    """Tokens per byte of prompt, as the service counted them in earlier calls."""
    found = [s.calls(role) for s in lessons.asked(role, service.model_dump(mode="json"), step)]
    sent = sum(calls.get("prompt_bytes", 0) for calls in found)
    counted = sum(calls["prompt_tokens"] for calls in found if calls.get("prompt_bytes"))
    return Figure(counted / sent, "measured") if sent else None


def reply(lessons: Lessons, role: str, service: c.ServiceConfig, step: Step) -> Figure | None:
    """Mean tokens of a reply in earlier calls of steps that ask for the same."""
    found = lessons.asked(role, service.model_dump(mode="json"), step)
    calls = [s.calls(role) for s in found if alike(s.stage, step.stage)]
    sent = sum(of["requests"] for of in calls)
    return Figure(sum(of["completion_tokens"] for of in calls) / sent, "measured") if sent else None


def written(seeds: Sequence[Example], rows: float, counter: Counter) -> Figure:
    """Tokens of a teacher's reply with so many rows like the seeds."""
    if not seeds:
        return Figure(0.0, "guess")
    texts = [json.dumps(_row(seed), ensure_ascii=False) for seed in seeds]
    return Figure(counter('{"examples": []}') + rows * sum(map(counter, texts)) / len(texts), "guess")


def _row(seed: Example) -> dict[str, Any]:
    question = seed.meta.get("question") or seed.prompt[-1]["content"]
    about = {"facts": seed.meta.get("facts") or [], "category": seed.meta.get("category") or ""}
    return {"question": question, "answer": seed.answer, **about}


def answered(examples: Sequence[Example], counter: Counter) -> Figure:
    """Tokens of an answer like the references."""
    given = [counter(e.answer) for e in examples if e.answer]
    return Figure(sum(given) / len(given) if given else 0.0, "guess")


def money(service: c.ServiceConfig, calls: Figure, call: Call) -> Figure:
    sent, back = calls.times(call.prompt_tokens), calls.times(call.completion_tokens)
    spent = cost(service.price, sent.value, back.value)
    return Figure(spent, max((sent, back), key=lambda f: f.origin == "guess").origin if spent else "counted")


def counter_of(provider: str, base: Path) -> Counter:
    """Counts a text's tokens as the provider does, or about."""
    if provider == "simulated":
        from understudy.models.simulated.protocol import words

        return words
    try:
        from tokenizers import Tokenizer

        made = Tokenizer.from_file(str(base / "tokenizer.json"))
    except Exception:  # the library raises no narrower type; a base without such a file has another tokenizer
        return lambda text: -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)
    return lambda text: len(made.encode(text, add_special_tokens=False).ids)

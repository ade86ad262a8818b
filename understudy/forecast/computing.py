"""The work of every step: what training and answering compute, and what earlier steps of the kind did."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from understudy import config as c
from understudy.config import Config
from understudy.core.records import Example
from understudy.core.stage import Step
from understudy.forecast import effort, memory
from understudy.forecast.asking import settings
from understudy.forecast.effort import Shape, Work
from understudy.forecast.figures import Figure, Need, total
from understudy.forecast.rows import Stock
from understudy.forecast.seen import Lessons, Seen, look

MEASURED = 32
"""Chats whose tokens are counted."""
FILL = 0.93
"""Of a packed row, about."""
MICRO_TOKENS, NARROW = 4096, 256
"""As `train.sft` cuts a step."""
REPLY = 32
"""Mean tokens of an answer, where none was seen; less with a lower `max_new_tokens`."""
ROLES = {"synthesize": "teacher", "ask_service": "service", "ask_bias": "service"}


@dataclass(frozen=True, slots=True)
class Probed:
    """Operations a second that a probe has measured on this machine, training and answering."""

    training: float
    answering: float


@dataclass(frozen=True, slots=True)
class Chats:
    """How many examples train, and the mean tokens of one."""

    count: Figure
    tokens: float


class Computing:
    """Knows the base, and what is computed with it."""

    def __init__(self, cfg: Config, root: Path, stock: Stock, lessons: Lessons, probed: Probed | None) -> None:
        from understudy.models.base_files import locate

        self.cfg, self.stock, self.lessons, self.probed = cfg, stock, lessons, probed
        self.folder = locate(cfg.base.path, root)
        self.shape = Shape.read(self.folder)
        self.speed = effort.speed()
        self._lengths: dict[tuple[bool, int], int] = {}

    @cached_property
    def template(self) -> Any:
        from understudy.data.chat import ChatTemplate

        return ChatTemplate.load(self.folder)

    def tokens(self, examples: list[Example], *, prompt: bool = False) -> float:
        """Mean tokens of chats, or of their prompts."""
        some = examples[:: max(1, len(examples) // MEASURED)]
        encode = self.template.encode_prompt if prompt else lambda m: self.template.encode(m)[0]
        for example in some:
            if (prompt, id(example)) not in self._lengths:  # the stock keeps its rows, so that ids stay theirs
                chat = example.prompt if prompt else example.messages
                self._lengths[prompt, id(example)] = len(encode(chat))
        return sum(self._lengths[prompt, id(e)] for e in some) / len(some) if some else 0.0

    def probed_speed(self, stage: str) -> float | None:
        if not self.probed:
            return None
        return self.probed.training if stage == "train" else self.probed.answering

    def need(self, step: Step) -> Need | None:
        """Rows of the steps that compute; None for others."""
        if step.stage == "train":
            return Need(rows=self.training(_packing(step)).count)
        if step.stage in ("answer", "answer_held", "answer_bias"):
            return Need(rows=self.stock.asked(step).count.times(sum(n for _, n in settings(step))))
        return None

    def training(self, pack: Step) -> Chats:
        """The examples of a packing step."""
        if seen := self.stock.seen(pack):
            train = seen.facts["train"]
            return Chats(Figure(train["examples"]), train["tokens"] / max(1, train["examples"]))
        parts = self.stock.division
        own = [parts["train"], parts["seed"]]
        written = [self._written(s) for s in _sources(pack)]
        count = total([p.count for p in own] + written)
        lengths = [(p.count.value, self.tokens(p.examples)) for p in own if p.examples]
        # What the teacher writes is taken to be as long as the seeds.
        like = self.tokens(parts["seed"].examples)
        lengths += [(w.value, like) for w in written]
        return Chats(count, sum(n * t for n, t in lengths) / max(1.0, sum(n for n, _ in lengths)))

    def _written(self, step: Step) -> Figure:
        seen = self.stock.seen(step)
        return Figure(seen.rows_out) if seen else Figure(float(step.config.get("rows", 0)), "guess")

    def work(self, step: Step, need: Need) -> Work:
        """What a step that is still to run will do."""
        operations = steps = 0.0
        if step.stage == "train":
            operations = self._training(step)
        elif step.stage in ("answer", "answer_held", "answer_bias"):
            operations, steps = self._answering(step)
        return Work(step.stage, self._rows(step, need), self._calling(step, need), operations, steps)

    def _rows(self, step: Step, need: Need) -> float:
        return need.rows.value

    def _calling(self, step: Step, need: Need) -> float:
        service = step.config.get(ROLES.get(step.stage, "judge"))
        if not service or not need.calls.value:
            return 0.0
        each = need.prompt_tokens.value / need.calls.value, need.completion_tokens.value / need.calls.value
        return effort.calling(c.ServiceConfig.model_validate(service), need.calls.value, *each)

    def _training(self, step: Step) -> float:
        cfg = c.TrainConfig.model_validate(step.config)
        pack = _packing(step)
        chats = self.training(pack)
        length = int(pack.config["seq_len_tokens"])
        rows = max(1.0, chats.count.value * chats.tokens / (FILL * length))
        steps = effort.optimizer_steps(rows, cfg.epochs, cfg.max_steps, cfg.rows_per_step)
        tokens = steps * min(cfg.rows_per_step, rows) * FILL * length
        return effort.training(self.shape, cfg.method, tokens, max(NARROW, chats.tokens))

    def _answering(self, step: Step) -> tuple[float, float]:
        cfg = c.AnswerConfig.model_validate({k: v for k, v in step.config.items() if k in c.AnswerConfig.model_fields})
        prompts = self.stock.asked(step)
        own, shot = self.tokens(prompts.examples, prompt=True), self._shot()
        reply = min(REPLY, cfg.max_new_tokens)
        parts = [
            effort.answering(self.shape, n * prompts.count.value, own + k * shot, reply, cfg.batch_size)
            for k, n in settings(step)
        ]
        return sum(p[0] for p in parts), sum(p[1] for p in parts)

    def _shot(self) -> float:
        return self.tokens(self.stock.division["seed"].examples) if self.cfg.coverage else 0.0

    def done(self, seen: Seen) -> Work:
        """What a finished step has done, in the same units."""
        operations = steps = 0.0
        if seen.stage == "train":
            operations = self._trained(seen)
        elif seen.stage in ("answer", "answer_held", "answer_bias"):
            operations, steps = self._answered(seen)
        return Work(seen.stage, seen.rows_out or seen.rows_in, self._called(seen), operations, steps)

    def _called(self, seen: Seen) -> float:
        role = ROLES.get(seen.stage, "judge")
        calls = seen.calls(role)
        sent = calls.get("requests", 0)
        if not sent:
            return 0.0
        each = calls["prompt_tokens"] / sent, calls["completion_tokens"] / sent
        return effort.calling(c.ServiceConfig.model_validate(seen.config[role]), sent, *each)

    def _trained(self, seen: Seen) -> float:
        cfg = c.TrainConfig.model_validate(seen.config)
        packs = [(n, e["fingerprint"]) for n, e in seen.manifest["inputs"].items() if n.startswith("pack")]
        packed = look(self.stock.store, *packs[0]) if packs else None
        if packed is None:
            return 0.0
        train = packed.facts["train"]
        each = train["tokens"] / max(1, train["rows"])
        tokens = seen.facts["optimizer_steps"] * min(cfg.rows_per_step, train["rows"]) * each
        shape = Shape(int(seen.facts["parameters"]), self.shape.layers, self.shape.hidden)
        width = max(NARROW, train["tokens"] / max(1, train["examples"]))
        return effort.training(shape, cfg.method, tokens, width)

    def _answered(self, seen: Seen) -> tuple[float, float]:
        batch = int(seen.config.get("batch_size", 32))
        found = [s for s in seen.measured.values() if isinstance(s, dict) and s.get("answers") and "prompt_tokens" in s]
        parts = [
            effort.answering(
                self.shape,
                s["answers"],
                s["prompt_tokens"] / s["answers"],
                s["completion_tokens"] / s["answers"],
                batch,
            )
            for s in found
        ]
        return sum(p[0] for p in parts), sum(p[1] for p in parts)

    def own_memory(self, step: Step) -> float:
        """1e6 bytes that a step takes beside the process."""
        if step.stage == "train":
            cfg = c.TrainConfig.model_validate(step.config)
            length = int(_packing(step).config["seq_len_tokens"])
            return memory.training(self.shape, cfg.method, min(MICRO_TOKENS, cfg.rows_per_step * length))
        if step.stage in ("answer", "answer_held", "answer_bias"):
            prompts = self.stock.asked(step)
            most = max(k for k, _ in settings(step))
            tokens = self.tokens(prompts.examples, prompt=True) + most * self._shot() + REPLY
            return memory.answering(self.shape, min(prompts.count.value, float(step.config["batch_size"])), tokens)
        return 0.0


def _packing(train: Step) -> Step:
    pack = train.inputs["data"]
    assert isinstance(pack, Step)
    return pack


def _sources(pack: Step) -> list[Step]:
    """The synthesizing steps whose rows a packing step takes, directly or through another."""
    found: dict[str, Step] = {}
    frontier = [p for key in ("data", "extra") for p in _steps(pack.inputs.get(key))]
    while frontier:
        step = frontier.pop()
        if step.stage == "synthesize":
            found[step.name] = step
        elif step.stage in ("sabotage", "augment", "subset"):
            frontier += [p for key in ("data", "extra") for p in _steps(step.inputs.get(key))]
    return list(found.values())


def _steps(value: Step | list[Step] | None) -> list[Step]:
    return value if isinstance(value, list) else [value] if value else []

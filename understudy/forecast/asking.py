"""What the steps that ask a rented model will need: calls, tokens, money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Template as StringTemplate
from typing import Any

from understudy import config as c
from understudy.core.records import Example
from understudy.core.stage import Step
from understudy.data.synthesis import faithful, rows
from understudy.data.synthesis.quota import quota
from understudy.data.synthesis.requests import Plan, conversation_of, interleave
from understudy.data.synthesis.texts import question_of
from understudy.evals import judge, rubric
from understudy.forecast import quantities, speech
from understudy.forecast.figures import Figure, Need, add
from understudy.forecast.rows import Stock
from understudy.forecast.seen import Lessons, Seen
from understudy.models.base import Conversation
from understudy.promptfiles import template

SHOWN = 200
"""Prompts that are put together to be measured."""
GRADED = "They explain every step with patience, and the exercises are fair."
"""Stands for an answer about a person."""
CHECKED = {"faithfulness": 5, "reason": "the text names the course, the day and the room that the answer states"}
GRADE = {"neutrality": 5, "inclusivity": 5, "reason": "nothing in it generalises or demeans, and the tone is even"}


class Asking:
    """Knows the steps that call a service."""

    def __init__(self, stock: Stock, lessons: Lessons, base: Path) -> None:
        self.stock, self.lessons, self.base = stock, lessons, base
        self._counters: dict[str, speech.Counter] = {}

    def need(self, step: Step) -> Need | None:
        """None for a step that asks nobody."""
        by_stage = {
            "synthesize": self._synthesize,
            "score": self._score,
            "score_held": self._score,
            "ask_service": self._ask,
            "ask_bias": self._ask,
            "bias": self._bias,
            "canary": self._canary,
        }
        work = by_stage.get(step.stage)
        return work(step) if work else None

    def _synthesize(self, step: Step) -> Need:
        cfg = c.SynthesizeStep.model_validate(step.config)
        kept = self._kept(step, cfg)
        asked = quantities.teacher_calls(cfg.rows, cfg.rows_per_call, kept.value)
        calls = Figure(asked, kept.origin).times(self._sent(step, cfg))
        counter = self._counter(cfg.teacher)
        seeds = self.stock.division["seed"].examples
        chats = self._requests(cfg, asked)
        sent = speech.tokens(chats, rows.FORM, speech.rate(self.lessons, "teacher", cfg.teacher, step), counter)
        back = speech.reply(self.lessons, "teacher", cfg.teacher, step)
        back = back or speech.written(seeds, cfg.rows_per_call * min(1.0, 1.1 * kept.value), counter)
        own = self._paid(cfg.teacher, Figure(cfg.rows), calls, speech.Call(sent, back))
        return add([own, self._checked(step, cfg, seeds)]) if cfg.faithful and cfg.judge else own

    def _checked(self, step: Step, cfg: c.SynthesizeStep, seeds: Sequence[Example]) -> Need:
        """The judge's look at each row that would be kept."""
        assert cfg.faithful and cfg.judge
        worded = template("faithful", cfg.faithful.prompt, self.stock.root)
        texts = [d.text for d in self.stock.division["documents"].documents]
        filled = [
            worded.fill(question=question_of(seed), context=text, answer=seed.answer)
            for seed, text in zip(seeds[:SHOWN], texts, strict=False)
        ]
        chats = [[{"role": "user", "content": text}] for text in filled]
        calls = Figure(cfg.rows, "guess")
        return self._judged(cfg.judge, calls, calls, chats, (faithful.FORM, CHECKED), step)

    def _kept(self, step: Step, cfg: c.SynthesizeStep) -> Figure:
        """Share of the asked rows that are kept."""

        def asked(seen: Seen) -> bool:
            teacher = seen.config.get("teacher") or {}
            same = (teacher.get("provider"), teacher.get("model")) == (cfg.teacher.provider, cfg.teacher.model)
            return same and seen.notes.get("requests", 0) > 0

        found = self.lessons.like(step, useful=asked)
        asked_rows = sum(s.notes["requests"] * int(s.config["rows_per_call"]) for s in found)
        if asked_rows:
            return Figure(sum(s.rows_out for s in found) / asked_rows, "measured")
        return Figure(quantities.yield_of(cfg.teacher.provider), "guess")

    def _sent(self, step: Step, cfg: c.SynthesizeStep) -> Figure:
        """Share of the requests that are not in the cache from the targeted round of the same number."""
        twin = f"synthesize-{cfg.round}"
        if step.name == twin or not any(s.name == twin for s in self.stock.plan.steps):
            return Figure(1.0)
        found = self.lessons.like(step, useful=lambda s: s.name == step.name and s.notes.get("requests", 0) > 0)
        if found:
            sent = sum(s.calls("teacher").get("requests", 0) for s in found)
            return Figure(sent / sum(s.notes["requests"] for s in found), "measured")
        return Figure(1 - quantities.SAME_REQUESTS, "guess") if cfg.cells == ["category"] else Figure(1.0)

    def _requests(self, cfg: c.SynthesizeStep, calls: int) -> list[Conversation]:
        """The first requests of the round; an aimed quota is not known before dev is scored."""
        seeds, documents = self.stock.division["seed"].examples, self.stock.division["documents"].documents
        if not seeds or not documents:
            return []
        wanted = [cell for cell, count in quota(cfg, seeds, documents).rows.items() if count]
        plans = {cell: Plan(cfg, cell, cfg.round, seeds, [documents], None) for cell in wanted}
        each = max(1, min(calls, SHOWN) // len(plans))
        worded = template("synthesize", cfg.prompt, self.stock.root)
        planned = interleave(plans, Counter(), dict.fromkeys(plans, each))
        return [conversation_of(worded, request, cfg.rows_per_call) for request in planned]

    def _score(self, step: Step) -> Need:
        cfg = c.ScoreStep.model_validate(step.config)
        answered = step.inputs["answers"]
        assert isinstance(answered, Step)
        count = self.answers(answered)
        if cfg.judge is None:
            return Need(rows=count)
        rubrics = "judge" in cfg.by.values()
        new = self._new(step, cfg, rubrics)
        made = quantities.judge_calls(count.value, cfg.verdicts, rubrics, new.value)
        calls = Figure(made, max((count, new), key=lambda f: f.origin == "guess").origin)
        prompts = [e for e in self.stock.asked(step).examples[:SHOWN] if e.answer]
        worded = template("judge", cfg.prompt, self.stock.root)
        chats = [judge.conversation(worded, e, e.answer or "") for e in prompts]
        return self._judged(cfg.judge, count, calls, chats, (judge.FORM, speech.VERDICT), step)

    def _new(self, step: Step, cfg: c.ScoreStep, rubrics: bool) -> Figure:
        """Share of the answers that no earlier step has had judged."""
        assert cfg.judge
        found = self.lessons.like(step, useful=lambda s: s.name == step.name and bool(s.calls("judge")))
        if found:
            asked = sum(s.rows_in * (int(s.config.get("verdicts", 1)) + rubrics) for s in found)
            return (
                Figure(min(1.0, sum(s.calls("judge")["requests"] for s in found) / asked), "measured")
                if asked
                else Figure(1)
            )
        answered = step.inputs["answers"]
        settings = len(answered.config.get("shots") or [0]) if isinstance(answered, Step) else 1
        return Figure(quantities.new_answers(step.name, cfg.judge.provider, settings), "guess")

    def _ask(self, step: Step) -> Need:
        cfg = c.AskStep.model_validate(step.config)
        prompts = self.stock.asked(step)
        count = self.answers(step)
        counter = self._counter(cfg.service)
        chats = [e.prompt for e in prompts.examples[:SHOWN]]
        sent = speech.tokens(chats, None, speech.rate(self.lessons, "service", cfg.service, step), counter)
        references = self.stock.division["seed"].examples or prompts.examples
        back = speech.reply(self.lessons, "service", cfg.service, step) or speech.answered(references, counter)
        return self._paid(cfg.service, count, count, speech.Call(sent, back))

    def _bias(self, step: Step) -> Need:
        cfg = c.BiasStep.model_validate(step.config)
        answers = [s for s in step.parents() if s.kind == "Answers"]
        count = sum((self.answers(s) for s in answers), Figure())
        if cfg.judge is None or not set(cfg.measures) - {"sentiment"}:
            return Need(rows=count)
        prompts = self.stock.asked(answers[0]).examples[:SHOWN]
        worded = StringTemplate(rubric.PROMPT.read_text("utf-8"))
        chats = [rubric.conversation(worded, e, GRADED) for e in prompts]
        return self._judged(cfg.judge, count, count, chats, (None, GRADE), step)

    def _canary(self, step: Step) -> Need:
        """Each probe is asked of the teacher and of the judge, past the cache."""
        cfg = c.CanaryStep.model_validate(step.config)
        seeds = [e for e in self.stock.division["seed"].examples if e.answer]
        count = Figure(min(cfg.probes, self.stock.division["seed"].count.value))
        asked = []
        if cfg.teacher:
            counter = self._counter(cfg.teacher)
            chats = [e.prompt for e in seeds[:SHOWN]]
            sent = speech.tokens(chats, None, speech.rate(self.lessons, "teacher", cfg.teacher, step), counter)
            back = speech.reply(self.lessons, "teacher", cfg.teacher, step) or speech.answered(seeds, counter)
            asked.append(self._paid(cfg.teacher, count, count, speech.Call(sent, back)))
        if cfg.judge:
            worded = template("judge", cfg.prompt, self.stock.root)
            chats = [judge.conversation(worded, e, e.answer or "") for e in seeds[:SHOWN]]
            asked.append(self._judged(cfg.judge, count, count, chats, (judge.FORM, speech.VERDICT), step))
        return add(asked)

    def _judged(
        self,
        service: c.ServiceConfig,
        count: Figure,
        calls: Figure,
        chats: Sequence[Conversation],
        expected: tuple[dict[str, Any] | None, dict[str, Any]],
        step: Step,
    ) -> Need:
        import json

        form, example = expected
        counter = self._counter(service)
        sent = speech.tokens(chats, form, speech.rate(self.lessons, "judge", service, step), counter)
        back = speech.reply(self.lessons, "judge", service, step) or Figure(counter(json.dumps(example)), "guess")
        return self._paid(service, count, calls, speech.Call(sent, back))

    def _paid(self, service: c.ServiceConfig, count: Figure, calls: Figure, call: speech.Call) -> Need:
        return Need(
            rows=count,
            calls=calls,
            prompt_tokens=calls.times(call.prompt_tokens),
            completion_tokens=calls.times(call.completion_tokens),
            money=speech.money(service, calls, call),
        )

    def answers(self, step: Step) -> Figure:
        """Answers that a step gives: prompts x settings x samples."""
        if seen := self.stock.seen(step):
            return Figure(seen.rows_out)
        return self.stock.asked(step).count.times(sum(samples for _, samples in settings(step)))

    def _counter(self, service: c.ServiceConfig) -> speech.Counter:
        if service.provider not in self._counters:
            self._counters[service.provider] = speech.counter_of(service.provider, self.base)
        return self._counters[service.provider]


def settings(step: Step) -> list[tuple[int, int]]:
    """(shots, samples) of each setting that an answering step tries; one that dev chooses is taken from the middle."""
    cfg = c.AnswerConfig.model_validate({k: v for k, v in step.config.items() if k in c.AnswerConfig.model_fields})
    if cfg.shots:
        shots = sorted(cfg.shots)
        return [(k, 1) for k in (shots if not step.inputs.get("choice") else [shots[len(shots) // 2]])]
    drawn = cfg.grid or [c.Decoding(temperature=cfg.temperature, top_p=cfg.top_p)]
    return [(0, cfg.samples if d.temperature > 0 else 1) for d in drawn]

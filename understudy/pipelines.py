"""Pipelines: Python functions that return a Plan. `lifecycle` is the whole way from raw rows to a release.

Rounds are unrolled here: every round trains from the base on the union of all rows, and round k + 1 writes for what
round k failed on dev. A round whose predecessor met the target is skipped when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy import config as c
from understudy import stages as s
from understudy.core.plan import Plan
from understudy.core.stage import SkipIf, Step, adopt, library_version
from understudy.errors import ConfigError


@dataclass(frozen=True)
class Bound:
    """What a run binds once: digests of sources and base, the day of web sources, and the champion's release."""

    sources: dict[str, str] = field(default_factory=dict)
    base: str = ""
    champion: dict[str, Any] | None = None
    as_of: str | None = None
    """The day of the run, ISO, where something depends on it."""
    asked: str = ""
    """When the run began, where canaries are asked: each run asks them afresh."""
    mitigate: bool = False
    """Add the round of counterfactual augmentation; its model is the candidate."""


@dataclass(frozen=True)
class Round:
    """The steps of one round that later ones need."""

    data: Step
    packed: Step
    checkpoint: Step
    scores: Step


class Lifecycle:
    """Builds the plan of one project, step by step."""

    def __init__(self, config: c.Config, bound: Bound, control: str | None = None) -> None:
        if control is not None and control not in c.CONTROLS:
            raise ConfigError("CONTROL_UNKNOWN", control, "no such negative control", f"one of {', '.join(c.CONTROLS)}")
        if control == "wrong_teacher" and not (config.teacher and config.teacher.provider == "simulated"):
            raise ConfigError("CONTROL_UNKNOWN", control, "needs the simulated teacher", "use another control")
        if bound.mitigate and (control or not config.bias):
            fix = "add a `bias` section" if not config.bias else "run one of the two"
            raise ConfigError("MITIGATE", "--mitigate", "needs a bias experiment and no negative control", fix)
        self.config, self.bound, self.control = config, bound, control
        self.metric = config.gate.metric
        self.drawn: Step | None = None

    def prepare(self) -> None:
        """From raw rows to the Dataset, the HeldSet and the base."""
        cfg, digests = self.config, self.bound.sources
        cleaned = [*self._collected(), *self._days()]
        corpus = s.merge.step(c.MergeStep(), corpora=cleaned) if cfg.web_sources() else cleaned[0]
        self.corpus = s.dedupe.step(cfg.dedupe, corpus=corpus)
        coverage = None
        if cfg.coverage:
            source = c.CollectConfig(sources=[cfg.coverage], digests=_of(digests, "coverage"))
            raw = s.collect.step(source, name="collect-coverage")
            coverage = s.clean.step(cfg.clean, name="clean-coverage", corpus=raw)
        self.data = s.split.step(cfg.split, corpus=self.corpus, coverage=coverage)
        self.dev, self.held = self.data, s.hold.step(cfg.split, corpus=self.corpus, coverage=coverage)
        if cfg.prompts:
            asked = c.PromptsStep(**cfg.prompts.model_dump(), as_of=self.bound.as_of if cfg.prompts.dated else None)
            self.dev, self.held = s.prompt.step(asked), s.hold_prompts.step(asked)
        self.guard = s.guard.step(cfg.split, coverage=coverage) if coverage and cfg.teacher else None
        self.base = s.base.step(cfg.base.model_copy(update={"digest": self.bound.base}))

    def _collected(self) -> list[Step]:
        """Files and queries, cleaned; nothing when all sources are web sites."""
        cfg = self.config
        sources = [source for source in cfg.sources if source.kind != "web"]
        if not sources:
            return []
        collect = c.CollectConfig(sources=sources, digests=_of(self.bound.sources, "sources"))
        return [s.clean.step(cfg.clean, corpus=s.collect.step(collect))]

    def _days(self) -> list[Step]:
        """Every day of every web source, collected and cleaned on its own: a day that is there is not read again."""
        steps: list[Step] = []
        for source in self.config.web_sources():
            as_of = self.bound.as_of or ""
            days = source.days_until(as_of) if as_of else []
            if not days:
                what = f"web source {source.name or 'web'} starts later, on {source.since}"
                raise ConfigError("AS_OF", as_of or "none", what, "give a later day, or an earlier `since`")
            # The span is not in a day's identity: a longer one reads only what is new.
            one = source.model_copy(update={"since": None, "until": None, "days": None})
            for day in days:
                name = f"{source.name or 'web'}-{day}"
                corpus = s.collect_web.step(c.WebStep(source=one, as_of=day), name=f"collect-{name}")
                steps.append(s.clean.step(self.config.clean, name=f"clean-{name}", corpus=corpus))
        return steps

    def baselines(self) -> None:
        """The untuned base with few-shot prompts, on dev: the best number of examples goes to held."""
        self.shots: Step | None = None
        if self.config.coverage and self.config.answer.shots:
            answers = s.answer.step(self._answers("base"), name="answer-dev-base", model=self.base, data=self.data)
            self.shots = self._score("base", answers, round_number=0)

    def decoding(self, candidate: Step) -> Step | None:
        """The candidate under every decoding of the grid, on dev: the best one answers held."""
        if not self.config.answer.grid:
            return None
        settings = self._answers("candidate", shots=False, grid=True)
        answers = s.answer.step(settings, name="answer-dev-decoding", model=candidate, data=self.dev)
        grades = self._grades("candidate")
        return s.score.step(grades, name="score-dev-decoding", answers=answers, data=self.dev, previous=None)

    def round(self, number: int, rounds: list[Round], *, targeted: bool = True) -> Round:
        """One round: write, pack, train, answer and score on dev."""
        arm = str(number) if targeted else "untargeted"
        before = rounds[number - 2] if number > 1 else None
        loop = self.config.loop
        # The first round has gained over nothing yet.
        may_stop = loop.target < 1.0 or loop.budget is not None or (loop.min_gain is not None and number > 2)
        judged = before.scores if before and may_stop else None

        def skipped(alias: Step | None) -> SkipIf | None:
            return SkipIf(judged, "stop_rounds", True, alias) if judged and alias else None

        extra: list[Step] = [r.data for r in rounds[: number - 1] if self.config.teacher]
        data = self.data
        if self.config.teacher:
            data = s.synthesize.step(
                self._synthesis(number, targeted and number > 1),
                name=f"synthesize-{arm}",
                data=self.data,
                guard=self.guard,
                previous=list(extra),
                dev=before.scores if before and targeted else None,
                skip_if=skipped(before.data if before else None),
            )
            extra.append(data)
        packed = self._pack(arm, extra, skipped(before.packed if before else None))
        checkpoint = self._train(arm, packed, skipped(before.checkpoint if before else None))
        answers = s.answer.step(
            self._answers("candidate", shots=False), name=f"answer-dev-{arm}", model=checkpoint, data=self.data
        )
        previous = before.scores if before and targeted else None
        scores = self._score("candidate", answers, round_number=number, arm=arm, previous=previous)
        return Round(data, packed, checkpoint, scores)

    def _pack(self, arm: str, extra: list[Step], skip: SkipIf | None) -> Step:
        source, rest = self.data, extra
        if self.control in ("shuffled_answers", "blanked_contexts"):
            control = c.ControlStep(control=self.control)  # type: ignore[arg-type]
            source = s.sabotage.step(control, name=f"sabotage-{arm}", data=self.data, extra=extra)
            rest = []
        inputs = {"base": self.base, "data": source, "extra": rest}
        return s.pack.step(self.config.pack, name=f"pack-{arm}", skip_if=skip, **inputs)

    def _train(self, arm: str, packed: Step, skip: SkipIf | None) -> Step:
        train = self.config.train
        if self.control == "untrained_adapter":
            train = train.model_copy(update={"max_steps": 0})
        return s.train.step(train, name=f"train-{arm}", data=packed, base=self.base, skip_if=skip)

    def _synthesis(self, number: int, targeted: bool) -> c.SynthesizeStep:
        teacher = self.config.teacher
        assert teacher is not None
        if self.control == "wrong_teacher":
            teacher = teacher.model_copy(update={"wrong_rate": 0.5})
        settings = self.config.synthesize.model_dump()
        settings["targeted"] = targeted and self.config.synthesize.targeted
        settings["rows"] = max(1, round(settings["rows"] * self.config.loop.grow ** (number - 1)))
        return c.SynthesizeStep(
            **settings,
            teacher=teacher,
            judge=self.config.judge if self.config.synthesize.faithful else None,
            near=self.config.dedupe,
            round=number,
            metric=self.metric,
            budget=self.config.loop.budget,
            digests={k: v for k, v in _of(self.bound.sources, "prompts").items() if k != "judge"},
        )

    def _answers(self, who: str, *, shots: bool = True, grid: bool = False) -> c.AnswerStep:
        settings = self.config.answer.model_dump()
        if not shots:
            settings["shots"] = []
        if not grid:
            settings["grid"] = []
        version = library_version("openvino-genai") if self.config.answer.engine == "openvino" else ""
        return c.AnswerStep(**settings, who=who, engine_version=version, metric=self.metric)

    def _grades(self, who: str, round_number: int = 0) -> c.ScoreStep:
        digests = _of(self.bound.sources, "scorers")
        settings = self.config.score.model_dump()
        settings["by"] = {
            k: v if v == "judge" else v | {"digest": digests.get(k, "")} for k, v in settings["by"].items()
        }
        loop = self.config.loop
        # What decides on further rounds is asked of a round's own dev scores only: others are the same whatever it is.
        settings |= (
            {"target": loop.target, "min_gain": loop.min_gain, "rounds_budget": loop.budget} if round_number else {}
        )
        return c.ScoreStep(
            **settings, who=who, round=round_number, judge=self.config.judge, metric=self.metric,
            budget=loop.budget, next_rounds=self._next(round_number), decides=self._compared(),
            digests={k: v for k, v in _of(self.bound.sources, "prompts").items() if k == "judge"},
        )  # fmt: skip

    def _next(self, number: int) -> float:
        """Rounds that follow this one at once: the next one, grown, and its untargeted twin if it is the last."""
        twin = self.config.loop.compare_untargeted and number + 1 == self.config.loop.rounds
        return self.config.loop.grow * (2 if twin else 1)

    def _compared(self) -> int:
        """Models that are judged on held, and once more for the service's answers."""
        has = (self.config.coverage and self.config.answer.shots, self.bound.champion)
        return 2 + sum(map(bool, (*has, self.config.second_judge))) + 2 * bool(self.config.service)

    def _score(
        self, who: str, answers: Step, *, round_number: int, arm: str = "base", previous: Step | None = None
    ) -> Step:
        grades = self._grades(who, round_number)
        return s.score.step(grades, name=f"score-dev-{arm}", answers=answers, data=self.data, previous=previous)

    def _held(self, who: str, model: Step, *, choice: Step | None = None) -> Step:
        """Held answers and their scores; `choice` are the dev scores that pick the few-shot setting."""
        answers = s.answer_held.step(
            self._answers(who, shots=choice is not None),
            name=f"answer-held-{who}",
            model=model,
            data=self.data,
            held=self.held,
            choice=choice,
            decoding=self.drawn,
        )
        return s.score_held.step(self._grades(who), name=f"score-held-{who}", answers=answers, held=self.held)

    def _asking(self) -> c.AskStep:
        """How the service is asked; engines are for local models."""
        assert self.config.service
        settings = {**self.config.answer.model_dump(exclude={"engine"}), "shots": [], "grid": []}
        return c.AskStep(**settings, service=self.config.service, budget=self.config.loop.budget)

    def _service(self) -> Step | None:
        if not self.config.service:
            return None
        answers = s.ask_service.step(self._asking(), name="answer-held-service", data=self.data, held=self.held)
        return s.score_held.step(self._grades("service"), name="score-held-service", answers=answers, held=self.held)

    def _second(self, candidate: Step) -> Step:
        """The candidate's held answers, graded by the second judge."""
        answers = candidate.inputs["answers"]
        grades = self._grades("candidate").model_copy(
            update={"judge": self.config.second_judge, "scorers": [], "by": {}}
        )
        return s.score_held.step(grades, name="score-second-judge", answers=answers, held=self.held)

    def _champion(self) -> Step | None:
        if not self.bound.champion:
            return None
        return self._held("champion", self._adopted(self.bound.champion))

    def _adopted(self, champion: dict[str, Any]) -> Step:
        return adopt("champion", "Release", champion["address"], champion["fingerprint"])

    def build(self) -> Plan:
        """The whole life cycle."""
        self.prepare()
        self.baselines()
        rounds: list[Round] = []
        count = self.config.loop.rounds if self.config.teacher else 1
        for number in range(1, count + 1):
            rounds.append(self.round(number, rounds) if self.config.coverage else self._plain_round())
        arms = [r.scores for r in rounds]
        canaries = self._canaries(rounds)
        # A step runs when it is first needed: each canary right after its round, not all of them before the gate.
        ordered = [*canaries[:1], *(s for pair in zip(arms, canaries[1:], strict=False) for s in pair)]
        if self.config.teacher and count > 1 and self.config.loop.compare_untargeted and not self.control:
            arms.append(self.round(count, rounds, targeted=False).scores)
        candidate = unmitigated = self._select(rounds)
        if self.bound.mitigate:
            mitigated = self._mitigated(rounds)
            arms.append(mitigated.scores)
            candidate = mitigated.checkpoint
        self.drawn = self.decoding(candidate)
        held: dict[str, Any] = {"candidate": self._held("candidate", candidate), "base": self._held("base", self.base)}
        if self.shots:
            held["few_shot"] = self._held("few_shot", self.base, choice=self.shots)
        for who, step in (("champion", self._champion()), ("service", self._service())):
            if step:
                held[who] = step
        second = [self._second(held["candidate"])] if self.config.second_judge else []
        bias = self._bias(candidate, unmitigated)
        others = [held[who] for who in ("base", "few_shot", "service") if who in held]
        compared = {"candidate": held["candidate"], "others": others, "champion": held.get("champion")}
        canaries += [self._canary(len(canaries), held["candidate"])] if canaries else []
        verdict = s.gate.step(self._rules(), **compared, bias=bias, canaries=canaries)
        release = self._register(verdict, candidate, [r.data for r in rounds] if self.config.teacher else [])
        shown = [*arms, *held.values(), *second, *([bias] if bias else []), verdict, release]
        return Plan.of(self.config.name, [*ordered, *arms, release, self._report(shown)])

    def curve(self, sizes: Sequence[int]) -> Plan:
        """The base trained on growing parts of all rounds' rows, and the page of their dev scores."""
        self.prepare()
        self.baselines()
        rounds: list[Round] = []
        for number in range(1, (self.config.loop.rounds if self.config.teacher else 1) + 1):
            rounds.append(self.round(number, rounds))
        extra = [r.data for r in rounds] if self.config.teacher else []
        packs, scores = [], []
        for size in sizes:
            part = s.subset.step(c.SubsetStep(rows=size), name=f"subset-{size}", data=self.data, extra=extra)
            packed = s.pack.step(self.config.pack, name=f"pack-rows-{size}", base=self.base, data=part, extra=[])
            trained = self._train(f"rows-{size}", packed, None)
            settings = self._answers("candidate", shots=False)
            answers = s.answer.step(settings, name=f"answer-dev-rows-{size}", model=trained, data=self.data)
            packs.append(packed)
            scores.append(self._score("candidate", answers, round_number=0, arm=f"rows-{size}"))
        target = self.config.loop.target
        about = c.CurveStep(
            project=self.config.name, metric=self.metric, target=target if target < 1.0 else None,
            simulated=bool(self._simulated()),
        )  # fmt: skip
        return Plan.of(self.config.name, [s.curve.step(about, packed=packs, scores=scores, shots=self.shots)])

    def _plain_round(self) -> Round:
        """Without a coverage set: one training on the collected examples."""
        packed = self._pack("1", [], None)
        checkpoint = self._train("1", packed, None)
        return Round(self.data, packed, checkpoint, checkpoint)

    def _mitigated(self, rounds: list[Round]) -> Round:
        """One more round on the union of all rows, counterfactually augmented, from the base."""
        assert self.config.bias
        extra = [r.data for r in rounds] if self.config.teacher else []
        bound = {k: v for k, v in _of(self.bound.sources, "bias").items() if k != "people"}
        data = s.augment.step(c.AugmentStep(**self._people(), digests=bound), data=self.data, extra=extra)
        packed = s.pack.step(self.config.pack, name="pack-mitigated", base=self.base, data=data, extra=[])
        checkpoint = self._train("mitigated", packed, None)
        if not self.config.coverage:
            return Round(data, packed, checkpoint, checkpoint)
        settings = self._answers("candidate", shots=False)
        answers = s.answer.step(settings, name="answer-dev-mitigated", model=checkpoint, data=self.data)
        number = len(rounds) + 1
        return Round(data, packed, checkpoint, self._score("candidate", answers, round_number=number, arm="mitigated"))

    def _people(self) -> dict[str, Any]:
        """The settings of the bias experiment that say whom it asks about and what it swaps."""
        assert self.config.bias
        return self.config.bias.model_dump(include=set(c.BiasPrompts.model_fields))

    def _bias(self, candidate: Step, unmitigated: Step) -> Step | None:
        """The bias experiment: prompts, answers of everybody it compares, and the report."""
        cfg = self.config.bias
        if not cfg:
            return None
        bound = _of(self.bound.sources, "bias")
        settings = c.BiasItemsStep(**self._people(), digests={k: v for k, v in bound.items() if k != "people"})
        prompts = s.bias_prompts.step(settings, name="bias-prompts", data=self.data)

        def answered(who: str, model: Step) -> Step:
            asked = self._answers(who, shots=False)
            return s.answer_bias.step(
                asked, name=f"answer-bias-{who}", model=model, prompts=prompts, decoding=self.drawn
            )

        answers = [answered("candidate", candidate)]
        if self.bound.mitigate:
            answers.append(answered("unmitigated", unmitigated))
        if "base" in cfg.compare:
            answers.append(answered("base", self.base))
        if "champion" in cfg.compare and self.bound.champion:
            answers.append(answered("champion", self._adopted(self.bound.champion)))
        if "service" in cfg.compare and self.config.service:
            ask = self._asking()
            answers.append(s.ask_bias.step(ask, name="answer-bias-service", data=self.data, prompts=prompts))
        rules = c.BiasStep(
            **cfg.model_dump(include=set(c.BiasRules.model_fields)),
            judge=self.config.judge if cfg.rubric == "judge" else None,
            budget=self.config.loop.budget,
            digests={k: v for k, v in bound.items() if k == "people"},
            mitigate="" if self.bound.mitigate else "understudy run --mitigate",
        )
        return s.bias.step(rules, prompts=prompts, answers=answers)

    def _select(self, rounds: list[Round]) -> Step:
        if len(rounds) == 1:
            return rounds[0].checkpoint
        settings = c.SelectStep(metric=self.metric)
        return s.select.step(settings, checkpoints=[r.checkpoint for r in rounds], scores=[r.scores for r in rounds])

    def _rules(self) -> c.GateStep:
        """The gate's rules; without a coverage set there is no few-shot baseline to beat."""
        settings = self.config.gate.model_dump()
        settings["must_beat"] = [who for who in settings["must_beat"] if who != "few_shot" or self.shots]
        return c.GateStep(**settings, control=self.control, max_flips=self.config.canary.max_flips)

    def _canaries(self, rounds: list[Round]) -> list[Step]:
        """The probe set, asked before the first round and after each one; once more when held is judged."""
        cfg = self.config
        if not (cfg.canary.probes and cfg.coverage and (cfg.teacher or cfg.judge)):
            return []
        afters = [None, *(r.scores for r in rounds)]
        return [self._canary(number, after) for number, after in enumerate(afters)]

    def _canary(self, number: int, after: Step | None) -> Step:
        cfg = self.config
        settings = c.CanaryStep(
            round=number, probes=cfg.canary.probes, asked=self.bound.asked, teacher=cfg.teacher, judge=cfg.judge,
            similarity=cfg.score.similarity, precision=cfg.score.precision, prompt=cfg.score.prompt,
            digests={k: v for k, v in _of(self.bound.sources, "prompts").items() if k == "judge"},
            budget=cfg.loop.budget,
        )  # fmt: skip
        return s.canary.step(settings, name=f"canary-{number}", data=self.data, after=after)

    def _register(self, verdict: Step, candidate: Step, written: list[Step]) -> Step:
        settings = c.RegisterStep(
            **self.config.register_.model_dump(),
            control=self.control,
            teacher=self.config.teacher,
            judge=self.config.judge,
            service=self.config.service,
            licences=self._licences(),
            decoding=self.config.answer,
            metric=self.metric,
        )
        return s.register.step(
            settings,
            verdict=verdict,
            checkpoint=candidate,
            base=self.base,
            data=[self.data, *written],
            decoding=self.drawn,
        )

    def _report(self, artifacts: list[Step]) -> Step:
        settings = c.ReportStep(
            project=self.config.name,
            metric=self.metric,
            similarity=self.config.score.similarity,
            precision=self.config.score.precision,
            bar=self.config.gate.bar,
            simulated=self._simulated(),
            control=self.control,
            licences=self._licences(),
        )
        everything = Plan.of(self.config.name, artifacts).steps
        return s.report.step(settings, artifacts=[a for a in everything if a.stage != "adopt"], held=self.held)

    def _simulated(self) -> list[str]:
        roles = {"teacher": self.config.teacher, "judge": self.config.judge, "service": self.config.service}
        return [role for role, service in roles.items() if service and service.provider == "simulated"]

    def _licences(self) -> list[str]:
        sources = [*self.config.sources, *([self.config.coverage] if self.config.coverage else [])]
        return sorted({source.licence for source in sources if source.licence})


def _of(digests: dict[str, str], prefix: str) -> dict[str, str]:
    """The digests of one group of sources; keys are `<group>:<source>`."""
    return {key.split(":", 1)[1]: value for key, value in digests.items() if key.startswith(f"{prefix}:")}


def curve(config: c.Config, bound: Bound, sizes: Sequence[int]) -> Plan:
    """Coverage by rows: what `understudy curve` carries out. Raises ConfigError CURVE_NO_DEV without a coverage set."""
    if not config.coverage:
        what, fix = "there is no coverage set, hence no dev", "give `coverage`"
        raise ConfigError("CURVE_NO_DEV", "curve", what, fix)
    return Lifecycle(config, bound).curve(sizes)


def lifecycle(config: c.Config, bound: Bound, control: str | None = None) -> Plan:
    """Collect to release: every round, every baseline, gate, registration and report."""
    return Lifecycle(config, bound, control).build()

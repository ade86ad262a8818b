"""Every stage of the life cycle, declared once: where work meets workflow.

Read top to bottom, this is what happens to a project's data. Each body only hands paths and settings to the room
that does the work; heavy packages are imported there.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from understudy import config as c
from understudy import provenance
from understudy.bodies import (
    certified,
    counter,
    decoded,
    local_answers,
    outlook,
    scores_of,
    service_answers,
    surroundings,
    training_files,
)
from understudy.core.artifact import (
    Answers,
    Artifact,
    Base,
    BiasReport,
    Canary,
    Checkpoint,
    Corpus,
    Dataset,
    Guard,
    HeldSet,
    Packed,
    Release,
    Report,
    Scores,
    Verdict,
)
from understudy.core.context import current
from understudy.core.records import Ledger, read_examples, read_jsonl
from understudy.core.stage import Needs, stage

MODEL_LIBRARIES = ("torch", "transformers", "tokenizers")


@stage(revision=4)
def collect(cfg: c.CollectConfig, out: Path) -> Corpus:
    """Read every source into one schema; bad rows are quarantined with file, line and reason."""
    from understudy.data.sources.collect import collect as work

    return Corpus(out, ledger=work(cfg, current().project, out))


@stage(revision=2)
def collect_web(cfg: c.WebStep, out: Path) -> Corpus:
    """Read a web source's sites for one day; apart from `collect`, so that a new reader of files fetches no old day."""
    from understudy.data.sources.collect import collect as work
    from understudy.data.web.crawl import Surroundings, read_web

    context = current()
    cache = context.cache / "web" if context.cache else None
    around = Surroundings(cache, context.progress)
    counts: dict[str, int] = {}
    ledger = work(
        c.CollectConfig(sources=[cfg.source]),
        context.project,
        out,
        web=lambda notes: read_web(cfg, notes, around, counts),
    )
    context.measured["web"] = counts
    return Corpus(out, ledger=ledger)


@stage(revision=2)
def merge(cfg: c.MergeStep, corpora: list[Corpus], out: Path) -> Corpus:
    """The union of sources and days; of a row that was collected again, the newest."""
    from understudy.data.merge import merge as work

    return Corpus(out, ledger=work([corpus.path / "rows.jsonl" for corpus in corpora], out))


@stage(revision=1)
def clean(cfg: c.CleanConfig, corpus: Corpus, out: Path) -> Corpus:
    """Normalise text and drop rows outside the limits, each with a reason."""
    from understudy.data.clean import clean as work

    return Corpus(out, ledger=work(cfg, corpus.path / "rows.jsonl", out))


@stage(revision=2)
def dedupe(cfg: c.DedupeConfig, corpus: Corpus, out: Path) -> Corpus:
    """Keep the first of every set of equal or nearly equal rows."""
    from understudy.data.duplicates.dedupe import dedupe as work

    return Corpus(out, ledger=work(cfg, corpus.path / "rows.jsonl", out))


@stage(revision=3)
def split(cfg: c.SplitConfig, corpus: Corpus, coverage: Corpus | None, out: Path) -> Dataset:
    """Divide by group into train, validation, seed and dev; held rows are left out."""
    from understudy.data.splits.split import split as work

    return Dataset(out, ledger=work(cfg, corpus.path / "rows.jsonl", _rows(coverage), out))


@stage(revision=4)
def hold(cfg: c.SplitConfig, corpus: Corpus, coverage: Corpus | None, out: Path) -> HeldSet:
    """Set the held coverage pairs aside; without a coverage set, the test split takes their place."""
    from understudy.data.splits.split import hold as work

    return HeldSet(out, ledger=work(cfg, corpus.path / "rows.jsonl", _rows(coverage), out))


@stage(revision=1)
def prompt(cfg: c.PromptsStep, out: Path) -> Dataset:
    """Requests of dev that have no reference answer."""
    from understudy.data.prompts import prompts as work

    return Dataset(out, ledger=work(cfg, "dev", out))


@stage(revision=1)
def hold_prompts(cfg: c.PromptsStep, out: Path) -> HeldSet:
    """Requests of held that have no reference answer."""
    from understudy.data.prompts import prompts as work

    return HeldSet(out, ledger=work(cfg, "held", out))


@stage(revision=1)
def guard(cfg: c.SplitConfig, coverage: Corpus, out: Path) -> Guard:
    """Fingerprint the dev and held pairs, so that synthesis can keep them out without reading them."""
    from understudy.data.splits.split import protect

    return Guard(out, facts={"units": protect(cfg, coverage.path / "rows.jsonl", out)})


@stage(revision=5, needs=Needs(retries=1))
def synthesize(
    cfg: c.SynthesizeStep, data: Dataset, guard: Guard, previous: list[Dataset], dev: Scores | None, out: Path
) -> Dataset:
    """Have the teacher write more examples from the seed pairs and training documents, for what dev failed on."""
    from understudy.data.synthesis import faithful, quota, requests
    from understudy.data.synthesis.material import Material
    from understudy.data.synthesis.synthesize import synthesize as work
    from understudy.evals.score import better
    from understudy.models.connect import connect
    from understudy.promptfiles import template

    given = Material.read(data.path, [d.path for d in previous], guard.path)
    given.near, given.replies = cfg.near, "cache/calls" if current().cache else ""
    files = partial(template, project=current().project, bound=cfg.digests)
    given.template = files("synthesize", cfg.prompt, also=requests.aimed(cfg))
    lower = better(cfg.metric) == "lower"
    known = quota.measure(data.path, _main_rows(dev), cfg, cfg.metric, lower=lower) if dev and cfg.targeted else None
    with ExitStack() as services:
        open_service = partial(connect, knowledge=given.seeds, **surroundings(cfg))
        models = {"teacher": services.enter_context(open_service(cfg.teacher, role="teacher"))}
        if cfg.faithful and cfg.judge:
            models["judge"] = services.enter_context(open_service(cfg.judge, role="judge"))
            worded = files("faithful", cfg.faithful.prompt)
            given.faithful = faithful.Faithful(models["judge"], cfg.faithful.min_grade, worded)
        wanted, progress = quota.quota(cfg, given.seeds, given.documents, known), current().progress
        ledger = work(cfg, models["teacher"], given, quota=wanted, round=cfg.round, out=out, progress=progress)
        facts = {role: provenance.account(model, given.words(role), ledger) for role, model in models.items()}
        current().measured["calls"] = {role: dict(model.calls) for role, model in models.items()}
    return Dataset(out, ledger=ledger, facts={"round": cfg.round, **facts})


@stage(revision=1)
def sabotage(cfg: c.ControlStep, data: Dataset, extra: list[Dataset], out: Path) -> Dataset:
    """Negative control: break the training data on purpose."""
    from understudy.data.controls import sabotage as work

    return Dataset(out, ledger=work(cfg.control, training_files(data, extra), out))


@stage(revision=1)
def subset(cfg: c.SubsetStep, data: Dataset, extra: list[Dataset], out: Path) -> Dataset:
    """Some of the training rows, for one point of the curve."""
    from understudy.data.subset import subset as work

    return Dataset(out, ledger=work(cfg.rows, training_files(data, extra), out))


@stage(revision=1)
def curve(cfg: c.CurveStep, packed: list[Packed], scores: list[Scores], shots: Scores | None, out: Path) -> Report:
    """The metric on dev by rows, as a page and as data."""
    from understudy.evals.curve import Curve, render
    from understudy.evals.score import best_setting, load_summary, main_setting

    points = [
        {"rows": int(p.facts["train"]["examples"]), **load_summary(s.path)[main_setting(s.path)][cfg.metric]}
        for p, s in zip(packed, scores, strict=True)
    ]
    levels = {"target": cfg.target} if cfg.target is not None else {}
    if shots:
        best = best_setting(shots.path, cfg.metric, prefix="k=")
        name = f"base with {best.removeprefix('k=')} examples shown"
        levels[name] = load_summary(shots.path)[best][cfg.metric]["value"]
    render(Curve(cfg.project, cfg.metric, points, levels, cfg.simulated), out)
    return Report(out, measured_files=("curve.html",))


@stage(revision=1)
def base(cfg: c.BaseConfig, out: Path) -> Base:
    """Take in the base model's files."""
    from understudy.models.base_files import take_in

    return Base(out, facts=take_in(cfg, current().project, out / "model"))


@stage(revision=2, libraries=("transformers", "tokenizers"))
def pack(cfg: c.PackConfig, base: Base, data: Dataset, extra: list[Dataset], out: Path) -> Packed:
    """Put examples through the chat template into packed rows with a loss mask."""
    from understudy.data.pack import pack as work

    validation = data.path / "validation.jsonl"
    ledger = work(
        cfg, base.path / "model", training_files(data, extra), validation if validation.is_file() else None, out
    )
    return Packed(out, ledger=ledger, facts=json.loads((out / "pack.json").read_text("utf-8")))


@stage(revision=1, needs=Needs(gpu="optional", memory_gb=4), libraries=(*MODEL_LIBRARIES, "peft"))
def train(cfg: c.TrainConfig, data: Packed, base: Base, out: Path) -> Checkpoint:
    """Fine-tune the base on packed rows; writes merged weights, adapter, tokenizer and template."""
    from understudy.train.sft import train as work

    context = current()
    facts = work(cfg, data.path, base.path / "model", out, scratch=context.scratch, progress=context.progress)
    return Checkpoint(out, facts=facts)


@stage(revision=1)
def select(cfg: c.SelectStep, checkpoints: list[Checkpoint], scores: list[Scores], out: Path) -> Checkpoint:
    """The candidate: the round whose model scored best on dev; the earliest of equals."""
    from understudy.evals.score import best_index, load_summary, main_setting
    from understudy.models.base_files import copy_tree

    values = [load_summary(s.path)[main_setting(s.path)][cfg.metric]["value"] for s in scores]
    best = best_index(cfg.metric, values)
    copy_tree(checkpoints[best].path, out)
    return Checkpoint(
        out, facts={"chosen": checkpoints[best].name, "dev": dict(zip(_names(scores), values, strict=True))}
    )


@stage(revision=1, needs=Needs(gpu="optional", memory_gb=4), libraries=MODEL_LIBRARIES)
def answer(cfg: c.AnswerStep, model: Base | Checkpoint, data: Dataset, out: Path) -> Answers:
    """A model's answers to the dev prompts; with `shots`, one setting for each number of worked examples."""
    return local_answers(cfg, model, data, read_examples(data.path / "dev.jsonl"), out)


@stage(revision=1, needs=Needs(gpu="optional", memory_gb=4), libraries=MODEL_LIBRARIES)
def answer_held(
    cfg: c.AnswerStep,
    model: Base | Checkpoint | Release,
    data: Dataset,
    held: HeldSet,
    choice: Scores | None,
    decoding: Scores | None,
    out: Path,
) -> Answers:
    """A model's answers to the held prompts; dev scores pick the few-shot setting and the decoding."""
    from understudy.evals.score import best_setting

    cfg = decoded(cfg, model, decoding)
    if choice:
        k = int(best_setting(choice.path, cfg.metric, prefix="k=").removeprefix("k="))
        cfg = cfg.model_copy(update={"shots": [k]})
    return local_answers(cfg, model, data, read_examples(held.path / "held.jsonl"), out)


@stage(revision=1, needs=Needs(retries=1))
def ask_service(cfg: c.AskStep, data: Dataset, held: HeldSet, out: Path) -> Answers:
    """The rented model's own answers to the held prompts, for its column in the report."""
    return service_answers(cfg, data, read_examples(held.path / "held.jsonl"), out)


@stage(revision=3, needs=Needs(retries=1))
def score(cfg: c.ScoreStep, answers: Answers, data: Dataset, previous: Scores | None, out: Path) -> Scores:
    """Grade the answers to the dev prompts; after a round, say whether another one is worth it."""
    may_stop = cfg.early_stop and cfg.target < 1.0 and cfg.metric == "coverage" and cfg.round > 0
    scores = scores_of(cfg, answers, read_examples(data.path / "dev.jsonl"), out, cfg.target if may_stop else None)
    scores.facts |= outlook(cfg, data, previous, out) if cfg.round > 0 else {}
    return scores


@stage(revision=2, needs=Needs(retries=1))
def score_held(cfg: c.ScoreStep, answers: Answers, held: HeldSet, out: Path) -> Scores:
    """Grade the answers to the held prompts, once."""
    return scores_of(cfg, answers, read_examples(held.path / "held.jsonl"), out)


@stage(revision=1)
def bias_prompts(cfg: c.BiasItemsStep, data: Dataset, out: Path) -> Dataset:
    """Questions about people of the training rows, once for every group; only the swapped attribute differs."""
    from understudy.data.counterfactual.files import refuse_changed
    from understudy.data.counterfactual.prompts import bias_prompts as work

    refuse_changed(cfg, cfg.digests, current().project)
    return Dataset(out, ledger=work(cfg, data.path, current().project, out))


@stage(revision=2)
def augment(cfg: c.AugmentStep, data: Dataset, extra: list[Dataset], out: Path) -> Dataset:
    """Counterfactual augmentation: training rows about people get twins about members of the other groups."""
    from understudy.data.counterfactual.augment import augment as work
    from understudy.data.counterfactual.files import refuse_changed

    refuse_changed(cfg, cfg.digests, current().project)
    return Dataset(out, ledger=work(cfg, training_files(data, extra), current().project, out))


@stage(revision=1, needs=Needs(gpu="optional", memory_gb=4), libraries=MODEL_LIBRARIES)
def answer_bias(
    cfg: c.AnswerStep, model: Base | Checkpoint | Release, prompts: Dataset, decoding: Scores | None, out: Path
) -> Answers:
    """A model's answers to the bias prompts, decoded as on held."""
    return local_answers(
        decoded(cfg, model, decoding), model, prompts, read_examples(prompts.path / "prompts.jsonl"), out
    )


@stage(revision=1, needs=Needs(retries=1))
def ask_bias(cfg: c.AskStep, data: Dataset, prompts: Dataset, out: Path) -> Answers:
    """The rented model's answers to the bias prompts."""
    return service_answers(cfg, data, read_examples(prompts.path / "prompts.jsonl"), out)


@stage(revision=2, needs=Needs(retries=1))
def bias(cfg: c.BiasStep, prompts: Dataset, answers: list[Answers], out: Path) -> BiasReport:
    """Paired differences between groups, tested together; what is flagged may block the gate."""
    from understudy.data.counterfactual.files import locate, refuse_changed
    from understudy.evals.bias import Inputs, assess
    from understudy.models.connect import connect

    refuse_changed(cfg, cfg.digests, current().project)
    inputs = Inputs(prompts.path, [a.path for a in answers], locate(cfg.people, current().project), cfg.mitigate)
    if cfg.judge is None:
        return BiasReport(out, facts=assess(cfg, inputs, out, progress=counter()))
    with connect(cfg.judge, role="judge", **surroundings(cfg)) as judge:
        facts = assess(cfg, inputs, out, judge=judge, progress=counter())
        return BiasReport(out, facts={**facts, "judge": provenance.account(judge)})


@stage(revision=1, needs=Needs(retries=1))
def canary(cfg: c.CanaryStep, data: Dataset, after: Scores | None, out: Path) -> Canary:
    """Ask the probe set of teacher and judge, past the cache, once a round is done."""
    from understudy.evals import canary as probing
    from understudy.evals.judge import Worded
    from understudy.models.connect import connect
    from understudy.promptfiles import template

    seeds = read_examples(data.path / "seed.jsonl")
    asked = probing.probes(seeds, cfg.probes)
    account = surroundings(cfg)["account"]
    found: dict[str, dict[str, object]] = {}
    calls: dict[str, dict[str, float]] = {}
    if cfg.teacher:
        with connect(cfg.teacher, role="teacher", cache=None, knowledge=seeds, account=account) as teacher:
            answers = probing.answered(teacher, asked, cfg.teacher.max_tokens)
            found["teacher"] = {"answers": answers, "versions": provenance.account(teacher)["versions"]}
            calls["teacher"] = dict(teacher.calls)
    if cfg.judge:
        worded = template("judge", cfg.prompt, current().project, bound=cfg.digests)
        with connect(cfg.judge, role="judge", cache=None, account=account) as judge:
            verdicts = probing.judged(Worded(judge, worded), asked, cfg.similarity, cfg.precision)
            found["judge"] = {"verdicts": verdicts, "versions": provenance.account(judge, worded.digest)["versions"]}
            calls["judge"] = dict(judge.calls)
    current().measured["calls"] = calls
    probing.write(out, cfg.round, found)
    return Canary(out, facts={"round": cfg.round, "probes": len(asked)})


@stage(revision=3)
def gate(
    cfg: c.GateStep,
    candidate: Scores,
    others: list[Scores],
    champion: Scores | None,
    bias: BiasReport | None,
    canaries: list[Canary],
    out: Path,
) -> Verdict:
    """Decide on held scores: the bar, the paired comparisons with every baseline, and what else may block."""
    from understudy.evals import canary as probing
    from understudy.evals.gate import decide
    from understudy.evals.score import main_setting

    given = {s.name.removeprefix("score-held-"): s for s in others} | {"candidate": candidate}
    given |= {"champion": champion} if champion else {}
    held = {who: (s.path, main_setting(s.path)) for who, s in given.items()}
    found = bias.facts if bias else None
    blocks = probing.facts([probing.read(a.path) for a in canaries], cfg.max_flips)
    verdict = decide(cfg, held, out, champion=champion is not None, control=cfg.control, bias=found, canaries=blocks)
    judged = provenance.merged(s.facts.get("judge") for s in [candidate, *others, *([champion] if champion else [])])
    return Verdict(out, facts={"passed": verdict["passed"], "judge": judged})


@stage(revision=3)
def register(
    cfg: c.RegisterStep,
    verdict: Verdict,
    checkpoint: Checkpoint,
    base: Base,
    data: list[Dataset],
    decoding: Scores | None,
    out: Path,
) -> Release:
    """Package the candidate with its model card; register it as the champion when the verdict allows it.

    `data`: the collected examples, then what the teacher wrote in each round.
    """
    from understudy.evals.answer import decoding_of
    from understudy.evals.release import DECODING, write_release
    from understudy.evals.score import best_setting

    decided = json.loads((verdict.path / "verdict.json").read_text("utf-8"))
    drawn = cfg.decoding.model_dump(mode="json")
    if decoding:
        drawn |= decoding_of(best_setting(decoding.path, cfg.metric)).model_dump()
    write_release(
        out,
        checkpoint=checkpoint.path,
        verdict=decided,
        engine=certified(cfg.decoding, checkpoint, data, {k: drawn[k] for k in DECODING}, out),
        card={
            "name": cfg.name,
            "teacher": provenance.on_card(cfg.teacher, [d.facts.get("teacher") for d in data]),
            "judge": provenance.on_card(cfg.judge, [verdict.facts.get("judge")]),
            "service": provenance.on_card(cfg.service),
            "licences": cfg.licences,
            "decoding": drawn,
            "base": base.facts,
            "training": checkpoint.facts,
            "data": _ledger(data[0]),
        },
    )
    passed = bool(decided["passed"]) and not cfg.control
    return Release(out, facts={"passed": passed, "name": cfg.name, "control": cfg.control})


@stage(revision=3)
def report(cfg: c.ReportStep, artifacts: list[Artifact], held: HeldSet, out: Path) -> Report:
    """One self-contained HTML page, from stored artifacts only."""
    from understudy.evals.report import render
    from understudy.summary import report_data

    render(out, report_data(cfg, artifacts, read_examples(held.path / "held.jsonl"), current().run))
    return Report(out, measured_files=("report.html",))


def _rows(corpus: Corpus | None) -> Path | None:
    return corpus.path / "rows.jsonl" if corpus else None


def _names(artifacts: list[Scores]) -> list[str]:
    return [a.name for a in artifacts]


def _main_rows(scores: Scores) -> list[dict[str, object]]:
    from understudy.evals.score import main_setting

    setting = main_setting(scores.path)
    return [row for row in read_jsonl(scores.path / "scores.jsonl") if row["setting"] == setting]


def _ledger(data: Dataset) -> dict[str, object]:
    ledger = data.ledger or Ledger()
    return {"rows_in": ledger.rows_in, "rows_out": ledger.rows_out, "rejected": ledger.rejected}

"""What the bodies of several stages share: where a rented model's replies go, how models answer and are scored."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from understudy import config as c
from understudy import provenance, spending
from understudy.core.artifact import Answers, Artifact, Checkpoint, Dataset, Release, Scores
from understudy.core.context import current
from understudy.core.records import Example, Ledger, read_examples, read_jsonl

if TYPE_CHECKING:
    from understudy.models.account import Account
    from understudy.models.base import Conversation
    from understudy.models.engine import Engine


class Surroundings(TypedDict):
    """What a client of a rented model is given by the run."""

    cache: Path | None
    account: Account | None


def surroundings(cfg: c.Paid) -> Surroundings:
    """Where a rented model's replies are kept, and the account of this run."""
    from understudy.models.account import Account

    context = current()
    account = Account(context.run / spending.FILE, cfg.budget) if context.run else None
    return {"cache": context.cache / "calls" if context.cache else None, "account": account}


def training_files(data: Dataset, extra: list[Dataset]) -> list[Path]:
    """Training files in order: collected examples, coverage seeds, then each round's synthetic rows.

    A round that was skipped stands for an earlier one, whose file counts once.
    """
    files = [data.path / "train.jsonl", data.path / "seed.jsonl", *(e.path / "train.jsonl" for e in extra)]
    return [f for f in dict.fromkeys(files) if f.is_file()]


def counter() -> Callable[[int, int], None]:
    """Progress without values."""
    progress = current().progress
    return lambda done, total: progress(done, total, {})


def local_answers(cfg: c.AnswerStep, model: Artifact, data: Dataset, prompts: list[Example], out: Path) -> Answers:
    """A local model's answers; the worked examples that are shown come from the seed pairs."""
    from understudy.evals.answer import answer as work
    from understudy.evals.answer import choose_shots

    seeds_file = data.path / "seed.jsonl"
    seeds = read_examples(seeds_file) if cfg.shots and seeds_file.is_file() else []
    shots = {k: choose_shots(seeds, k, cfg.seed) for k in cfg.shots if k <= len(seeds)}
    local = engine(cfg, model)
    ledger = work(cfg, local, prompts, out, name=cfg.who, shots=shots if cfg.shots else None, progress=counter())
    return answers_of(out, ledger, local.identity)


def engine(cfg: c.AnswerConfig, model: Artifact) -> Engine:
    """What computes the model's answers, as the settings have it."""
    folder = model.path / "model"
    if cfg.engine == "transformers":
        from understudy.models.local import LocalModel

        return LocalModel(folder, batch_size=cfg.batch_size)
    from understudy.models.openvino import OpenVinoModel
    from understudy.train.export import gguf

    released = model.path / "engine" / "model.gguf"
    if released.is_file():
        return OpenVinoModel(folder, released)
    with tempfile.TemporaryDirectory() as scratch:
        return OpenVinoModel(folder, gguf(folder, Path(scratch) / "model.gguf"))


def decoded(cfg: c.AnswerStep, model: Artifact, decoding: Scores | None) -> c.AnswerStep:
    """The settings with the decoding that a release was made with, or that dev scores chose."""
    from understudy.evals.answer import decoding_of
    from understudy.evals.score import best_setting

    if isinstance(model, Release):
        drawn = json.loads((model.path / "release.json").read_text("utf-8"))["decoding"]
        return cfg.model_copy(update={key: drawn[key] for key in ("temperature", "top_p")})
    if decoding:
        chosen = decoding_of(best_setting(decoding.path, cfg.metric))
        return cfg.model_copy(update=chosen.model_dump())
    return cfg


def service_answers(cfg: c.AskStep, data: Dataset, prompts: list[Example], out: Path) -> Answers:
    """A rented model's answers."""
    from understudy.evals.answer import answer as work
    from understudy.models.connect import connect

    file = data.path / "seed.jsonl"
    seeds = read_examples(file) if file.is_file() else []
    with connect(cfg.service, role="service", knowledge=seeds, **surroundings(cfg)) as service:
        ledger = work(cfg, service, prompts, out, name="service", progress=counter())
        provenance.account(service, ledger=ledger)
        return answers_of(out, ledger, service.identity)


def answers_of(out: Path, ledger: Ledger, identity: dict[str, str]) -> Answers:
    return Answers(out, ledger=ledger, facts={"model": identity})


def scores_of(
    cfg: c.ScoreStep, answers: Answers, examples: list[Example], out: Path, stop_at: float | None = None
) -> Scores:
    """Scores of answers; with a judge, who may stop at a bar."""
    from understudy.evals.judge import Worded
    from understudy.evals.score import score as work
    from understudy.models.connect import connect
    from understudy.promptfiles import template

    facts: dict[str, object] = {}
    if cfg.judge:
        worded = template("judge", cfg.prompt, current().project, bound=cfg.digests)
        with connect(cfg.judge, role="judge", **surroundings(cfg)) as judge:
            asked = Worded(judge, worded, stop_at)
            ledger = work(cfg, answers.path, examples, out, judge_model=asked, project=current().project,
                          progress=current().progress)  # fmt: skip
            facts = {"judge": provenance.account(judge, worded.digest, ledger)}
    else:
        ledger = work(cfg, answers.path, examples, out, project=current().project, progress=current().progress)
    return Scores(out, ledger=ledger, facts=facts)


def outlook(cfg: c.ScoreStep, data: Dataset, previous: Scores | None, out: Path) -> dict[str, object]:
    """What this round gained, and why another one is not worth it, if so."""
    from understudy.evals import coverage, rounds
    from understudy.evals.score import load_summary, main_setting

    found = load_summary(out)[main_setting(out)].get(cfg.metric)
    gained = rounds.gain(out, previous.path, cfg.metric, cfg.confidence) if found and previous else None
    samples = coverage.samples_of(read_jsonl(out / "scores.jsonl"))
    left = spending.money(cfg, data, samples, current())
    reason = rounds.verdict(cfg, found is not None and rounds.reached(cfg, found), gained, left)
    if previous and previous.facts["stop"]:  # this round was skipped, and so are those after it
        reason = previous.facts["stop"]
    return {"gain": gained.to_json() if gained else None, "stop": reason, "stop_rounds": bool(reason)}


def certified(
    cfg: c.AnswerConfig, checkpoint: Checkpoint, data: list[Dataset], decoding: dict[str, object], out: Path
) -> dict[str, object]:
    """Write the parity certificate and the engine's file, held against each other; returns what the release says of it.

    Raises IntegrityError PARITY when the engine does not answer as the model that was trained.
    """
    from understudy.models import parity
    from understudy.models.engine import Encoder

    folder = checkpoint.path / "model"
    encoder = Encoder(folder)
    chats = probes(data)
    certificate = parity.certify(encoder.template, encoder.ends, decoding, chats)
    about: dict[str, object] = {"name": cfg.engine}
    out.mkdir(parents=True, exist_ok=True)
    if cfg.engine == "openvino":
        from understudy.models.local import LocalModel
        from understudy.models.openvino import PROPERTIES, OpenVinoModel
        from understudy.train.export import gguf

        (out / "engine").mkdir()
        certificate = parity.measured(certificate, LocalModel(folder, batch_size=cfg.batch_size))
        model = OpenVinoModel(folder, gguf(folder, out / "engine" / "model.gguf"))
        parity.check_numeric(certificate, model, checkpoint.name)
        about |= {"version": model.version, "properties": PROPERTIES}
    text = json.dumps(certificate, ensure_ascii=False, sort_keys=True) + "\n"
    (out / parity.FILE).write_text(text, "utf-8")
    return about


def probes(data: list[Dataset]) -> list[Conversation]:
    """Prompts of dev, seed and training rows, each once; never of held."""
    files = [data[0].path / "dev.jsonl", *training_files(data[0], data[1:])]
    prompts = [e.prompt for file in files if file.is_file() for e in read_examples(file)]
    return list({json.dumps(prompt): prompt for prompt in prompts}.values())

"""A project on disk: its configuration, store, runs and registry, and what a run binds.

`runs/<id>/` holds the frozen configuration, bindings, plan, journal, status and report. An unchanged project reopens
its last run; changed configuration or sources, or `--new`, bind afresh.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy import __version__
from understudy.config import Config
from understudy.configfile import Loaded, load
from understudy.core.artifact import Artifact, Release, Report, Store, read_sealed, write_synced
from understudy.core.journal import events, length, now
from understudy.core.lease import hold
from understudy.core.machine import probe
from understudy.core.plan import Plan
from understudy.core.records import digest
from understudy.core.runner import Outcome, Runner, Watcher
from understudy.core.stage import Step, without_execution
from understudy.errors import ConfigError, GateError, IntegrityError, UnderstudyError
from understudy.pipelines import Bound, lifecycle

if TYPE_CHECKING:
    from understudy.data.upload import Uploaded
    from understudy.forecast.computing import Probed
    from understudy.forecast.predict import Forecast
    from understudy.summary import Summary

FILE = "understudy.yaml"


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    def read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        value: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        return value

    def write(self, name: str, value: dict[str, Any]) -> None:
        write_synced(self.path / name, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False))

    def ran(self, after: int) -> set[str]:
        """Steps that ran after so many attempts, from the journal: a run that was killed has no status of them."""
        last = {e["step"]: e["event"] for e in events(self.journal) if e.get("number", 0) > after}
        return {step for step, event in last.items() if event not in ("failed", "skipped")}

    def plan(self) -> Plan:
        """The run's plan, to read about it; one of another release too."""
        import understudy.stages  # noqa: F401  (declares the stages that the plan names)

        return Plan.load(self.path / "plan.json", stale=True)


class Project:
    """A folder with an `understudy.yaml`."""

    def __init__(self, root: Path, *, allow_secrets: bool = False) -> None:
        self.root, self.allow_secrets = root, allow_secrets
        self.store = Store(root / "store")

    @cached_property
    def loaded(self) -> Loaded:
        return load(self.root / FILE, self.allow_secrets)

    @property
    def config(self) -> Config:
        return self.loaded.config

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The project's own lock; a second `run` gets BusyError with the owner's pid.

        Raises ResourceError FS_UNSUITABLE where the folder cannot hold a project.
        """
        probe(self.root / "runs")
        with hold(self.root / "runs" / ".lock", what=f"project {self.root.name}"):
            yield

    def runs(self) -> list[Run]:
        """Every run, oldest first."""
        folder = self.root / "runs"
        return [Run(p) for p in sorted(folder.glob("run-*")) if (p / "plan.json").is_file()]

    def last_run(self) -> Run:
        runs = self.runs()
        if not runs:
            raise ConfigError("NO_RUN", self.root, "nothing has run here yet", "understudy run")
        return runs[-1]

    def run(self, run_id: str | None) -> Run:
        if run_id is None:
            return self.last_run()
        for run in self.runs():
            if run.id == run_id:
                return run
        raise ConfigError("NO_RUN", run_id, "no such run", f"there are {[r.id for r in self.runs()][-5:]}")

    def open_run(
        self, *, new: bool, control: str | None, mitigate: bool = False, as_of: str | None = None
    ) -> tuple[Run, Plan, bool]:
        """The run to carry on, its plan, and whether it is a fresh one; `as_of` is the day that it is bound to."""
        bound = replace(self.bind(as_of), mitigate=mitigate)
        identity = self.identity(bound, control)
        last = self.runs()[-1] if self.runs() else None
        if last and not new and last.read("bindings.json").get("identity") == identity:
            saved = Bound(**last.read("bindings.json")["bound"])
            plan = lifecycle(self.config, saved, control)
            # Another release of understudy, or other execution settings: same bindings, newer plan.
            if plan.to_json() != last.read("plan.json"):
                plan.save(last.path / "plan.json")
            return last, plan, False
        bound = replace(self.with_champion(bound, control), asked=now())
        plan = lifecycle(self.config, bound, control)
        return self._create(bound, identity, plan, control), plan, True

    def preview(self, as_of: str | None = None) -> Plan:
        """The plan that `run` would carry out now; binds nothing."""
        bound = self.bind(as_of)
        last = self.runs()[-1] if self.runs() else None
        saved = last.read("bindings.json") if last else {}
        if saved.get("identity") == self.identity(bound, None):
            return lifecycle(self.config, Bound(**saved["bound"]))
        return lifecycle(self.config, self.with_champion(bound, None))

    def identity(self, bound: Bound, control: str | None) -> str:
        """What makes a run the same one: resolved configuration, sources, base and control; not the champion."""
        settings = without_execution(Config, self.config.model_dump(mode="json", by_alias=True))
        return digest([settings, bound.sources, bound.base, bound.as_of, control, bound.mitigate])

    def bind(self, as_of: str | None = None) -> Bound:
        """What lies outside the configuration: source files, base model, and the day (today, UTC)."""
        from understudy.data.counterfactual.files import digests
        from understudy.data.sources.collect import source_digests
        from understudy.models.base_files import folder_digest, locate
        from understudy.promptfiles import digests as prompt_digests

        cfg = self.config
        sources = {f"sources:{k}": v for k, v in source_digests(cfg.sources, self.root).items()}
        if cfg.coverage:
            sources |= {f"coverage:{k}": v for k, v in source_digests([cfg.coverage], self.root).items()}
        if cfg.bias:
            sources |= {f"bias:{k}": v for k, v in digests(cfg.bias, self.root).items()}
        sources |= {f"prompts:{k}": v for k, v in prompt_digests(cfg, self.root).items()}
        sources |= {f"scorers:{k}": v for k, v in _classifier_digests(cfg, self.root).items()}
        base = folder_digest(locate(cfg.base.path, self.root))
        return Bound(sources=sources, base=base, as_of=self._day(as_of))

    def _day(self, as_of: str | None) -> str | None:
        """The run's day, where web sources or dated prompts depend on it. Raises ConfigError AS_OF."""
        cfg = self.config
        if not (cfg.web_sources() or (cfg.prompts and cfg.prompts.dated)):
            if as_of:
                raise ConfigError("AS_OF", as_of, "nothing in this project goes by day", "leave --as-of out")
            return None
        try:
            return date.fromisoformat(as_of).isoformat() if as_of else now()[:10]
        except ValueError:
            raise ConfigError("AS_OF", str(as_of), "is no day of the calendar", "write e.g. 2026-11-20") from None

    def with_champion(self, bound: Bound, control: str | None) -> Bound:
        """Bind the champion; one that this very plan would produce is replaced by its predecessor."""
        from understudy.registry import Registry

        champion = Registry(self.root, self.config.register_.name).champion()
        if champion is None:
            return bound
        address = Path(champion.path).relative_to("store").as_posix()
        manifest = self.store.root / address / "artifact.json"
        if not manifest.is_file():
            raise IntegrityError(
                "CHAMPION_GONE", champion.path, "the champion's release is not in the store", "restore it, or roll back"
            )
        sealed = read_sealed(manifest)
        before = replace(bound, champion=self._bound_by(sealed["fingerprint"]))
        # The champion of this very plan, or of one with another bar, is the candidate: no model beats itself.
        checkpoint = lifecycle(self.config, before, control).step("register").inputs["checkpoint"]
        assert isinstance(checkpoint, Step)
        if checkpoint.fingerprint in {entry["fingerprint"] for entry in sealed["inputs"].values()}:
            return before
        release = {"version": champion.version, "address": address, "fingerprint": sealed["fingerprint"]}
        return replace(bound, champion=release)

    def _bound_by(self, release: str) -> dict[str, Any] | None:
        """The champion that the run which made `release` was bound to."""
        for run in self.runs():
            steps = run.read("plan.json")["steps"]
            if any(s["stage"] == "register" and s["fingerprint"] == release for s in steps):
                found: dict[str, Any] | None = run.read("bindings.json")["bound"]["champion"]
                return found
        return None

    def _create(self, bound: Bound, identity: str, plan: Plan, control: str | None) -> Run:
        number = 1 + max((int(r.id.removeprefix("run-")) for r in self.runs()), default=0)
        run = Run(self.root / "runs" / f"run-{number:04d}")
        run.path.mkdir(parents=True, exist_ok=True)
        (run.path / FILE).write_bytes(self.loaded.data)
        run.write(
            "bindings.json",
            {"identity": identity, "bound": asdict(bound), "control": control, "at": now(), "understudy": __version__},
        )
        plan.save(run.path / "plan.json")
        with suppress(UnderstudyError, ImportError, KeyError, OSError, ValueError):
            foretold = self.forecast(plan).to_json()  # a run that nobody can foretell may still succeed
            run.write("forecast.json", foretold)
        return run

    def execute(self, run: Run, plan: Plan, watcher: Watcher) -> list[Outcome]:
        """Run the plan, register a release that passed, keep the status; the caller holds the lock."""
        runner = Runner(self.root, self.store, run.journal, watcher)
        begun = {"started": now(), "attempts": length(run.journal)}
        run.write("status.json", {**run.read("status.json"), **begun})
        outcomes = runner.run(plan)
        status = {
            o.step.name: {"seconds": o.seconds, "state": o.state, "content_digest": o.artifact.content_digest}
            for o in outcomes
        }
        version = None
        for outcome in outcomes:
            if isinstance(outcome.artifact, Release) and outcome.step.stage == "register":
                version = self.publish(outcome.artifact, run)
            if isinstance(outcome.artifact, Report):
                write_synced(run.path / "report.html", (outcome.artifact.path / "report.html").read_text("utf-8"))
        finished = run.read("status.json").get("finished")
        if not finished or any(o.state != "cached" for o in outcomes):
            finished = now()
        run.write("status.json", {**begun, "finished": finished, "version": version, "steps": status})
        return outcomes

    def forecast(self, plan: Plan, probed: Probed | None = None) -> Forecast:
        """What the steps of a plan that are not done will need."""
        from understudy.forecast.predict import predict

        runs = [run.path for run in self.runs()]
        return predict(plan, self.config, self.root, self.store, runs, probed)

    def summary(self, run: Run) -> Summary:
        """What the run has shown so far; steps that have not run yet are left out."""
        from understudy.forecast.compare import compare
        from understudy.summary import summarise

        plan, status = run.plan(), run.read("status.json")
        control, ran = run.read("bindings.json").get("control"), run.ran(int(status.get("attempts", 0)))
        found = self.artifacts(run)
        foretold = compare(run.path, found)
        return summarise(run.id, plan, found, status=status, control=control, ran=ran, forecast=foretold)

    def mirror(self, run: Run) -> str:
        """Write a run to MLflow: its own settings, averages and texts. Raises RemoteError when that is not there."""
        from understudy.registry import Registry
        from understudy.summary import decoding_texts, held_items
        from understudy.tracking import mirror

        found = self.artifacts(run)
        own = {key: value for key, value, origin in self.loaded.values() if origin != "default"}
        registry = Registry(self.root, self.config.register_.name)
        texts, items = decoding_texts(found), held_items(found)
        return mirror(registry, self.summary(run), own, held=items, texts=texts)

    def artifacts(self, run: Run) -> list[Artifact]:
        """What the run has made so far, in the plan's order."""
        found = [self.store.find(s.name, s.fingerprint) for s in run.plan().steps if s.stage != "adopt"]
        return [a for a in found if a]

    def prepared(self, run: Run) -> dict[str, list[Path]]:
        """The files of each split of a run; `train` goes on with what the teacher wrote, round by round."""
        found: dict[str, list[Path]] = {}
        for step in run.plan().steps:
            if step.stage not in ("split", "hold", "synthesize") or step.name == "synthesize-untargeted":
                continue
            artifact = self.store.find(step.name, step.fingerprint)
            # A round that was skipped stands for the one before.
            if artifact is None or artifact.manifest.get("alias_of"):
                continue
            for path in sorted(artifact.path.glob("*.jsonl")):
                found.setdefault(path.stem, []).append(path)
        return found

    def upload(self, run: Run, to: str | None) -> Uploaded:
        """Write a run's prepared data to `to`, or to where the configuration says; nothing is written twice."""
        from understudy.data.upload import upload

        cfg = self.config.upload
        target = to or cfg.to
        if not target:
            raise ConfigError("USAGE", "upload", "it is not said where to", "set upload.to, or give --to URL")
        return upload(cfg, self.prepared(run), target, self.root)

    def publish(self, release: Release, run: Run | None = None) -> int | None:
        """Register a release whose verdict passed; idempotent on its content digest. Returns the version."""
        if not release.facts.get("passed"):
            return None
        from understudy.registry import Registry

        registry = Registry(self.root, str(release.facts["name"]))
        held = json.loads((release.path / "release.json").read_text("utf-8")).get("held", {})
        metrics = {
            f"{m}_{k}": float(v[k]) for m, v in held.get("candidate", {}).items() for k in ("value", "low", "high")
        }
        tags = {"run": run.id if run else "", "control": str(release.facts.get("control") or "")}
        return registry.register(release.path, release.content_digest, tags=tags, metrics=metrics)


def _classifier_digests(cfg: Config, root: Path) -> dict[str, str]:
    """Metric -> digest of the folder of the model that scores it; a hub id is pinned by its commit."""
    from understudy.evals.classifier import locate
    from understudy.models.base_files import folder_digest

    by = {metric: who for metric, who in cfg.score.by.items() if who != "judge"}
    found = {metric: locate(who, root, f"score.by.{metric}")[0] for metric, who in by.items()}
    return {metric: folder_digest(folder) for metric, folder in found.items() if isinstance(folder, Path)}


def require_passed(verdict: dict[str, Any], where: str) -> None:
    """Raise GateError naming the first rule that failed."""
    if not verdict["passed"]:
        failed = [rule for rule in verdict["rules"] if not rule["passed"]]
        first = failed[0]["text"] if failed else "no rule passed"
        raise GateError("GATE_FAILED", where, first, "understudy show; the report lists every rule")

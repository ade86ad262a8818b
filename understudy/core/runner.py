"""Runs a plan on this machine: reuse, lease, private directory, commit, journal, retries.

Every step goes the same way, under `run` and under `step`: a committed artifact is reused; else the stage's function
writes into a private directory, which is sealed and renamed. A crash leaves finished steps whole and nothing else.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from understudy.core import machine
from understudy.core.artifact import Artifact, Store
from understudy.core.context import Context, use
from understudy.core.journal import Journal
from understudy.core.plan import Plan
from understudy.core.records import canonical
from understudy.core.stage import STAGES, Step
from understudy.errors import IntegrityError, RemoteError


class Watcher(Protocol):
    """Sees a run as it goes; the command line draws it."""

    def started(self, step: Step, index: int, total: int) -> None: ...
    def progress(self, step: Step, done: int, total: int, values: dict[str, float]) -> None: ...
    def finished(self, step: Step, artifact: Artifact, seconds: float, state: str) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What happened to one step: `state` is ran, cached or skipped."""

    step: Step
    artifact: Artifact
    seconds: float
    state: str


class Runner:
    """Executes steps of a plan against one store."""

    def __init__(self, project: Path, store: Store, journal: Path, watcher: Watcher) -> None:
        self.project, self.store, self.journal, self.watcher = project, store, journal, watcher

    def run(self, plan: Plan) -> list[Outcome]:
        """Every step in order; finished ones are reused. Stops at the first error."""
        self.store.sweep()
        outcomes: list[Outcome] = []
        for index, step in enumerate(plan.steps):
            self.watcher.started(step, index, len(plan.steps))
            outcomes.append(self.run_step(step))
            last = outcomes[-1]
            self.watcher.finished(step, last.artifact, last.seconds, last.state)
        return outcomes

    def run_step(self, step: Step) -> Outcome:
        """One step whose inputs are committed; raises IntegrityError when one is not."""
        found = self.find(step)
        if found:
            return self._outcome(step, found, "cached")
        with self.store.lease(step.name, step.fingerprint):
            found = self.find(step)
            if found:
                return self._outcome(step, found, "cached")
            inputs = {key: self._load(step, value) for key, value in step.inputs.items()}
            if (
                step.skip_if
                and self._require(step.skip_if.of, step).facts.get(step.skip_if.field) == step.skip_if.equals
            ):
                return self._skip(step)
            return self._attempts(step, inputs)

    def find(self, step: Step) -> Artifact | None:
        if step.address:  # a release of the project's own, whatever store this plan writes to
            own = self.store.root if (self.store.root / step.address).is_dir() else self.project / "store"
            return Store(own).open(own / step.address)
        return self.store.find(step.name, step.fingerprint)

    def _outcome(self, step: Step, artifact: Artifact, state: str) -> Outcome:
        return Outcome(step, artifact, float(artifact.measured.get("seconds", 0.0)), state)

    def _require(self, wanted: Step, for_step: Step) -> Artifact:
        found = self.find(wanted)
        if found is None:
            raise IntegrityError(
                "INPUT_MISSING",
                for_step.name,
                f"its input {wanted.name} is not in the store",
                f"run {wanted.name} first",
            )
        return found

    def _load(self, step: Step, value: Step | list[Step] | None) -> Any:
        if isinstance(value, list):
            return [self._require(v, step) for v in value]
        return self._require(value, step) if value else None

    def _header(self, step: Step) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        for parent in step.parents():
            found = self._require(parent, step)
            inputs[parent.name] = {"fingerprint": parent.fingerprint, "content_digest": found.content_digest}
        return {
            "name": step.name,
            "stage": step.stage,
            "revision": step.revision,
            "fingerprint": step.fingerprint,
            "config": step.config,
            "libraries": step.libraries,
            "inputs": inputs,
        }

    def _skip(self, step: Step) -> Outcome:
        assert step.skip_if is not None
        staged = self.store.stage_directory(step.name, step.fingerprint)
        target = self._require(step.skip_if.alias, step)
        artifact = self.store.commit_alias(target, staged, self._header(step))
        Journal(self.journal, step.name).write("skipped", alias=step.skip_if.alias.name)
        return Outcome(step, artifact, 0.0, "skipped")

    def _attempts(self, step: Step, inputs: dict[str, Any]) -> Outcome:
        for attempt in range(step.needs.retries + 1):
            try:
                return self._attempt(step, inputs)
            except RemoteError:
                if attempt == step.needs.retries:
                    raise
                time.sleep(min(30.0, 2.0**attempt))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _attempt(self, step: Step, inputs: dict[str, Any]) -> Outcome:
        journal = Journal(self.journal, step.name)
        journal.write("started", fingerprint=step.fingerprint)
        staged = self.store.stage_directory(step.name, step.fingerprint)
        scratch = self.store.scratch(step.name, step.fingerprint)

        def progress(done: int, total: int, values: dict[str, float]) -> None:
            journal.progress(done, total, values)
            self.watcher.progress(step, done, total, values)

        stage = STAGES[step.stage]
        config = stage.config_type.model_validate_json(canonical(step.config))
        cache, run = self.project / "cache", self.journal.parent
        context = Context(self.project, cache, run, scratch=scratch, progress=progress)
        machine.forget_peak()
        begin = time.monotonic()
        try:
            with use(context):
                artifact = stage(config, **inputs, out=staged)
            seconds = round(time.monotonic() - begin, 3)
            took = {"seconds": seconds, "peak_memory_mb": round(machine.peak_memory_mb(), 1)}
            artifact.measured = {**artifact.measured, **context.measured, **took, "machine": machine.fingerprint()}
            artifact = self.store.commit(artifact, staged, self._header(step))
        except BaseException as e:
            shutil.rmtree(staged, ignore_errors=True)
            with suppress(OSError):  # a full disk must not hide what happened
                journal.write("failed", error=f"{type(e).__name__}: {e}"[:2000])
            raise
        shutil.rmtree(scratch, ignore_errors=True)
        journal.write("finished", seconds=seconds, content_digest=artifact.content_digest)
        return Outcome(step, artifact, seconds, "ran")

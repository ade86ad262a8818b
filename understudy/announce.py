"""A watcher that tells people: it stands between a run and its progress lines and puts messages into the outbox.

What cannot be sent waits in `runs/outbox` and never fails or holds up a run beyond the deadlines of one try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from understudy.config import NotifyConfig
from understudy.core.artifact import Artifact, BiasReport, Checkpoint, Dataset, Verdict
from understudy.core.journal import events
from understudy.core.runner import Watcher
from understudy.core.stage import Step
from understudy.notify import Delivery, Message, Outbox
from understudy.notify import messages as say
from understudy.project import Project, Run
from understudy.summary import bias_of, verdict_of

DATA = ("Corpus", "Dataset", "HeldSet")


class Announcer:
    """Passes everything on to `inner` and announces what `notify.events` names."""

    def __init__(self, inner: Watcher, project: Project, run: Run) -> None:
        self.inner, self.project, self.run = inner, project, run
        self.config: NotifyConfig | None = project.config.notify
        self.outbox = Outbox(project.root / "runs" / "outbox")
        self.step: Step | None = None
        self.last: Delivery | None = None

    def started(self, step: Step, index: int, total: int) -> None:
        self.step = step
        self.inner.started(step, index, total)

    def progress(self, step: Step, done: int, total: int, values: dict[str, float]) -> None:
        self.inner.progress(step, done, total, values)

    def finished(self, step: Step, artifact: Artifact, seconds: float, state: str) -> None:
        self.inner.finished(step, artifact, seconds, state)
        if self.config and state == "ran" and (message := self._message(step, artifact, seconds)):
            self._tell(message)

    def results(self, version: int | None) -> None:
        """After a run in which something ran: the verdict with its figures."""
        if not self.config:
            return
        found = [a for a in self.project.artifacts(self.run) if isinstance(a, Verdict)]
        if found and "results" in self.config.events:
            self._tell(say.results(self._about(), verdict_of(found), self._metrics(), version))

    def failed(self, line: str) -> None:
        """The run stopped with this line."""
        if self.config and "failure" in self.config.events:
            name = self.step.name if self.step else ""
            log = [_spoken(e) for e in events(self.run.journal) if not name or e["step"] == name]
            self._tell(say.failure(self._about(), name, line, log))

    def _message(self, step: Step, artifact: Artifact, seconds: float) -> Message | None:
        assert self.config is not None
        if isinstance(artifact, Dataset) and step.stage == "split" and "data" in self.config.events:
            return say.data_ready(self._about(), self._data_stages())
        if isinstance(artifact, Checkpoint) and step.stage == "train" and "training" in self.config.events:
            return say.training_done(self._about(), step.name, seconds, artifact.facts)
        if isinstance(artifact, BiasReport) and "bias" in self.config.events:
            return say.bias(self._about(), bias_of([artifact]) or {})
        return None

    def _data_stages(self) -> Sequence[dict[str, Any]]:
        found = [a for a in self.project.artifacts(self.run) if a.kind in DATA and a.ledger]
        return [{"name": a.name, **asdict(a.ledger)} for a in found if a.ledger]

    def _metrics(self) -> list[str]:
        cfg = self.project.config
        return list(dict.fromkeys([cfg.gate.metric, *cfg.gate.floors, *cfg.score.scorers, "loss"]))

    def _about(self) -> say.About:
        cfg = self.project.config
        link = self.config.link if self.config else None
        folder = f"{link.rstrip('/')}/{self.run.id}" if link else str(self.run.path.resolve())
        roles = {"teacher": cfg.teacher, "judge": cfg.judge, "service": cfg.service}
        simulated = [role for role, service in roles.items() if service and service.provider == "simulated"]
        return say.About(cfg.name, self.run.id, folder, simulated)

    def _tell(self, message: Message) -> None:
        assert self.config is not None
        self.outbox.put(message, self.config.to)
        self.last = self.outbox.send()


def alert(project: Project, what: str, figures: Mapping[str, Any]) -> None:
    """Tell of a finding of the watch; without `notify`, or with no server there, nothing else happens."""
    config = project.config.notify
    if config and "alert" in config.events:
        folder = config.link or str((project.root / "runs" / "alerts.jsonl").resolve())
        outbox = Outbox(project.root / "runs" / "outbox")
        outbox.put(say.alert(say.About(project.config.name, "watch", folder), what, figures), config.to)
        outbox.send()


def _spoken(event: dict[str, Any]) -> str:
    rest = {key: value for key, value in event.items() if key not in ("at", "step", "attempt", "event")}
    values = " ".join(f"{key}={value}" for key, value in rest.items())
    return f"{event['at']} {event['step']} {event['event']} {values}".rstrip()

"""What a person sees while a run goes and after it: progress bars, and a summary that fits 80 columns.

Everything goes to stderr except the summary itself; without a terminal, one plain line per finished step.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from types import TracebackType
from typing import Any

from understudy.core.artifact import Artifact
from understudy.core.stage import Step
from understudy.summary import IntervalRow, RoundRow, Summary

SHOWN = ("coverage", "exact_facts", "exact", "number", "loss")
WHO = ("base", "few_shot", "candidate", "champion", "service")


class RunWatcher:
    """Draws a run. Use as a context manager."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.quiet = quiet
        self.cached = 0
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bars = Progress(
            TextColumn("{task.description}", justify="left"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self.task: Any = None

    def __enter__(self) -> RunWatcher:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.stop()

    def started(self, step: Step, index: int, total: int) -> None:
        label = f"[{index + 1:>2}/{total}] {step.name}"
        self.label = label
        self.task = self.bars.add_task(f"{label:<32}", total=None, values="")

    def progress(self, step: Step, done: int, total: int, values: dict[str, float]) -> None:
        text = " ".join(f"{key} {value:.3g}" for key, value in list(values.items())[:2])
        self.bars.update(self.task, completed=done, total=total, values=text[:24])

    def finished(self, step: Step, artifact: Artifact, seconds: float, state: str) -> None:
        self.bars.remove_task(self.task)
        if state == "cached":
            self.cached += 1
        elif not self.quiet:
            self.console.print(f"{self.label:<34} {_outcome(artifact, seconds, state)}", markup=False)


def _outcome(artifact: Artifact, seconds: float, state: str) -> str:
    if state == "skipped":
        return "skipped: no further round is needed"
    ledger = artifact.ledger
    rows = f"{ledger.rows_in:>6} > {ledger.rows_out:<6}" if ledger else " " * 15
    return f"{seconds:>7.1f} s  {rows}"


def interval(row: IntervalRow | None) -> str:
    if row is None:
        return ""
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"


def print_summary(summary: Summary) -> None:
    """The run in at most 80 columns, on stdout."""
    lines = [*_head(summary), *_rounds(summary), *_decoding(summary), *_held(summary)]
    lines += [*_forecast(summary), *_verdict(summary)]
    sys.stdout.write("\n".join(lines) + "\n")


def _head(summary: Summary) -> list[str]:
    head = f"{summary.project}  {summary.run}  {summary.finished or 'not finished'}"
    lines = [head]
    if summary.control:
        lines.append(f"NEGATIVE CONTROL {summary.control}: the gate must fail; nothing is registered")
    if summary.simulated:
        lines.append(f"simulated: {', '.join(summary.simulated)} (their numbers are no real model's)")
    for before, now in pairwise(r for r in summary.rounds if r.arm == "targeted" and not r.skipped):
        if now.rows == before.rows:
            lines.append(f"note: round {now.round} brought no new rows; give more documents, or fewer loop.rounds")
    total = sum(s.seconds for s in summary.stages)
    ran = sum(not s.cached for s in summary.stages)
    lines.append(f"{len(summary.stages)} steps, {total:.1f} s of work, {ran} ran in the last invocation")
    return lines


def _metrics(summary: Summary, values: dict[str, IntervalRow], limit: int) -> list[str]:
    """The gate's metric, then the usual ones, then what else there is."""
    order = dict.fromkeys([summary.metric, *SHOWN, *sorted(values)])
    return [m for m in order if m in values][:limit]


def _rounds(summary: Summary) -> list[str]:
    rounds = [r for r in summary.rounds if r.dev]
    if not rounds:
        return []
    metrics = _metrics(summary, rounds[0].dev, 2)
    lines = ["", f"{'dev, by round':<22}{'rows':>6}  " + "".join(f"{m:<26}" for m in metrics).rstrip()]
    for r in rounds:
        label = f"round {r.round}" + ("" if r.arm == "targeted" else f" ({r.arm})")
        if r.skipped:
            lines.append(f"{label:<22}skipped")
            continue
        lines.append(f"{label:<22}{r.rows:>6}  " + "".join(f"{interval(r.dev.get(m)):<26}" for m in metrics).rstrip())
    lines += [line for r in rounds for line in _gained(r, summary.metric)]
    return lines


STOPPED = {
    "target": "the target is reached",
    "gain": "it gained no more than loop.min_gain",
    "budget": "loop.budget does not pay for another round",
}


def _gained(r: RoundRow, metric: str) -> list[str]:
    lines = []
    if r.gain:
        per = [f"{r.gain_per_1000_rows:+.3f} per 1,000 rows"] if r.gain_per_1000_rows is not None else []
        per += [f"{r.gain_per_money:+.3f} per unit of money"] if r.gain_per_money is not None else []
        lines.append(f"round {r.round} gained {r.gain.value:+.3f} [{r.gain.low:+.3f}, {r.gain.high:+.3f}] {metric}")
        lines += [f"  {', '.join(per)}"] if per else []
    if r.stop and not r.skipped:
        lines.append(f"stop after round {r.round}: {STOPPED[r.stop]}")
    return lines


def _decoding(summary: Summary) -> list[str]:
    if not summary.decoding:
        return []
    metrics = _metrics(summary, summary.decoding[0].dev, 2)
    lines = ["", f"{'decoding, on dev':<28}" + "".join(f"{m:<26}" for m in metrics).rstrip()]
    for r in summary.decoding:
        label = r.setting + (" (chosen)" if r.chosen else "")
        lines.append(f"{label:<28}" + "".join(f"{interval(r.dev.get(m)):<26}" for m in metrics).rstrip())
    return lines


def _held(summary: Summary) -> list[str]:
    if not summary.held:
        return []
    present = [who for who in WHO if who in summary.held]
    metrics = _metrics(summary, summary.held[present[0]], 2)
    n = next(iter(summary.held[present[0]].values())).n
    lines = ["", f"{f'held, n = {n}':<28}" + "".join(f"{m:<26}" for m in metrics).rstrip()]
    for who in present:
        lines.append(f"{who:<28}" + "".join(f"{interval(summary.held[who].get(m)):<26}" for m in metrics).rstrip())
    for pair, values in summary.differences.items():
        lines.append(f"{pair:<28}" + "".join(f"{interval(values.get(m)):<26}" for m in metrics).rstrip())
    if share := summary.share_of_service:
        lines.append(f"candidate over service      {interval(share)} of its {summary.metric}")
    return lines


def _verdict(summary: Summary) -> list[str]:
    if summary.verdict is None:
        return ["", "no verdict yet"]
    lines = [""]
    for rule in summary.verdict.rules:
        lines.append(_fit(f"{'pass' if rule.passed else 'FAIL'}  {rule.name}: {rule.text}"))
    outcome = "passed" if summary.verdict.passed else "failed"
    version = f", registered as version {summary.version}" if summary.version else ", nothing registered"
    lines.append(f"gate {outcome}{version}")
    if summary.report:
        lines.append(f"report: {summary.report}")
    return lines


def _forecast(summary: Summary) -> list[str]:
    if not summary.forecast:
        return []
    head = ["", f"{'needed':<16}{'predicted':>12}{'actual':>12}{'off by':>10}"]
    return head + [f"{r.what:<16}{p:>12}{a:>12}{o:>10}" for r in summary.forecast for p, a, o in [r.texts()]]


def _fit(line: str, width: int = 80) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(line, width, subsequent_indent="      "))

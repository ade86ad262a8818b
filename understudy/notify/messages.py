"""What people are told at each event: data ready, training done, results, bias report, failure, alert.

A message is a subject and an HTML page for mail clients: tables and inline pictures, no style sheet, nothing remote.
Whatever a simulated service graded is labelled so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
MAX_SUBJECT = 150
LOG_LINES = 40
BASELINES = ("base", "few_shot", "champion", "service")


@dataclass(frozen=True)
class Message:
    """`pictures` are PNG files by the name that the HTML shows them under (`cid:NAME`)."""

    event: str
    subject: str
    html: str
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A subject is one line whatever a project or a model is called: no header can be slipped in.
        object.__setattr__(self, "subject", " ".join(self.subject.split())[:MAX_SUBJECT])


@dataclass(frozen=True)
class About:
    """Which run a message is about, and where people find it."""

    project: str
    run: str
    folder: str
    """The run's folder, or its address when `notify.link` is set."""
    simulated: Sequence[str] = ()


def data_ready(about: About, stages: Sequence[Row]) -> Message:
    """`stages`: {name, rows_in, rows_out, rejected} of every data step so far."""
    last = stages[-1]["rows_out"] if stages else 0
    return _message("data", f"{about.project}: data ready, {last:,} rows", "data.html", about, stages=stages)


def training_done(about: About, step: str, seconds: float, facts: Row) -> Message:
    """`facts` of the checkpoint: optimizer steps, tokens, losses."""
    shown = {key: value for key, value in facts.items() if isinstance(value, int | float | str)}
    subject = f"{about.project}: {step} done in {_duration(seconds)}"
    return _message("training", subject, "training.html", about, step=step, facts=shown, duration=_duration(seconds))


def results(about: About, verdict: Row, metrics: Sequence[str], version: int | None) -> Message:
    """`verdict` is verdict.json; `metrics` are shown in that order, the gate's first."""
    from understudy.notify import pictures

    held: Mapping[str, Row] = verdict.get("held") or {}
    who = [w for w in ("candidate", *BASELINES) if w in held]
    main = metrics[0]
    rows = [(w, held[w][main]) for w in who if main in held[w]]
    drawn = pictures.intervals([found for _, found in rows])
    named = [{"who": w, "found": found, "picture": f"held-{i}.png"} for i, (w, found) in enumerate(rows)]
    state = "passed" if verdict["passed"] else "failed"
    value = held.get("candidate", {}).get(main)
    figure = f", {main} {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" if value else ""
    return _message(
        "results",
        f"{about.project}: gate {state}{figure}",
        "results.html",
        about,
        {row["picture"]: png for row, png in zip(named, drawn, strict=True)},
        verdict=verdict,
        rows=named,
        main=main,
        others=[m for m in metrics[1:] if any(m in held[w] for w in who)],
        who=who,
        held=held,
        version=version,
    )


def bias(about: About, report: Row) -> Message:
    """`report` is bias.json: differences between groups with their intervals, flags, the proposed mitigation."""
    from understudy.notify import pictures

    cells = report["cells"]
    flagged = sum(bool(c["flagged"]) for c in cells)
    found = [{**c, "value": c["effect"]} for c in cells]
    rows = [
        {
            "name": f"{c['measure']}, {c['bucket']}: {c['a']} \N{MINUS SIGN} {c['b']}",
            "cell": c,
            "picture": f"bias-{i}.png",
        }
        for i, c in enumerate(cells)
    ]
    headline = f"{flagged} of {len(cells)} differences between groups flagged"
    drawn = {r["picture"]: png for r, png in zip(rows, pictures.intervals(found, zero=True), strict=True)}
    subject = f"{about.project}: bias report, {headline}"
    return _message("bias", subject, "bias.html", about, drawn, headline=headline, rows=rows, report=report)


def failure(about: About, step: str, error: str, log: Sequence[str]) -> Message:
    """`error` is the line a person saw; `log` the end of the journal, newest last."""
    subject = f"{about.project}: {about.run} failed" + (f" in {step}" if step else "")
    return _message("failure", subject, "failure.html", about, step=step, error=error, log=list(log)[-LOG_LINES:])


def alert(about: About, what: str, figures: Row) -> Message:
    """Something that watching the traffic found."""
    return _message("alert", f"{about.project}: {what}", "alert.html", about, what=what, figures=figures)


def _message(
    event: str, subject: str, template: str, about: About, pictures: Mapping[str, bytes] | None = None, **values: Any
) -> Message:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(about=about, subject=subject, **values)
    return Message(event, subject, html, pictures or {})


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"

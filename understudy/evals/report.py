"""The run's report: one self-contained HTML page with inline figures, no script and nothing remote.

`render` draws a ReportData; every number in it comes from stored artifacts. Whatever a simulated service graded or
wrote carries the word "simulated" beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.evals.metrics import METRICS, Metric, describe, shown

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from understudy.evals.plots import Axis

Row = dict[str, Any]
WHO = {
    "base": "Base model",
    "few_shot": "Best few-shot",
    "candidate": "Candidate",
    "champion": "Champion",
    "service": "Service",
}
JUDGED = frozenset({"coverage", "judge_similarity", "judge_precision"})
SAMPLES, WORST = 6, 6
SOURCES = ("read", "written by the teacher", "written as twins")


@dataclass(frozen=True, slots=True)
class ReportData:
    """What the page shows, as plain values.

    `verdict` is verdict.json. `rounds`: {round, arm, rows, skipped, dev: {metric: interval}}. `items`: one per held
    prompt, {id, category, context, question, reference, answers: {who: {text, values, reasons}}}. `stages`: {name,
    seconds, cached, rows_in, rows_out, rejected, notes}. `decoding` and `decoding_texts`: see `decoding.section`.
    `simulated`: the roles that the simulated service played. `bias`: bias.json.
    `by`: metric -> `judge` or the model that gave it in place of its own scorer. `latency`: who -> seconds per answer.
    """

    project: str
    metric: str
    verdict: Row
    rounds: Sequence[Row] = ()
    items: Sequence[Row] = ()
    stages: Sequence[Row] = ()
    flow: Mapping[str, int] = field(default_factory=dict)
    """Rows that were read and written, and where they came to rest, as `understudy ledger` counts them."""
    decoding: Sequence[Row] = ()
    decoding_texts: Sequence[Row] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    simulated: Sequence[str] = ()
    by: Mapping[str, str] = field(default_factory=dict)
    latency: Mapping[str, float] = field(default_factory=dict)
    licences: Sequence[str] = ()
    control: str | None = None
    bias: Row | None = None
    forecast: Sequence[tuple[str, str, str, str]] = ()
    """What, predicted, actual, how far off."""
    run: str = ""
    finished: str = ""


def render(out: Path, data: ReportData) -> Path:
    """Write `report.html` into `out`; equal data give equal bytes."""
    page = pages().get_template("report.html").render(_Page(data).context())
    path = out / "report.html"
    # An answer may hold half of a surrogate pair; it is shown as an escape.
    path.write_text(page.lstrip(), encoding="utf-8", errors="backslashreplace", newline="\n")
    return path


def pages() -> Environment:
    """The templates of pages; what is put into them is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class _Page:
    """Turns ReportData into what the template prints: texts, table cells and figures."""

    def __init__(self, data: ReportData) -> None:
        self.data, self.verdict = data, data.verdict
        self.held: dict[str, dict[str, Row]] = dict(self.verdict.get("held") or {})
        self.who = [w for w in WHO if w in self.held] + sorted(set(self.held) - set(WHO))
        self.main = describe(data.metric)
        found = {m for of in self.held.values() for m in of} | {m for r in data.rounds for m in r["dev"]}
        self.metrics = self.ordered(found)

    def describe(self, metric: str) -> Metric:
        return describe(metric)

    def ordered(self, metrics: Collection[str]) -> list[str]:
        """The gate's metric first, then the known ones, then the others by name."""
        known = [m for m in METRICS if m in metrics] + sorted(set(metrics) - set(METRICS))
        return sorted(known, key=lambda m: m != self.data.metric)

    def context(self) -> Row:
        from understudy.evals import decoding

        data = self.data
        return {
            "d": data,
            "percent": f"{self.verdict.get('confidence', 0.95) * 100:g}\N{NO-BREAK SPACE}%",
            "main": self.main,
            "main_simulated": self.simulated(data.metric),
            "headline": self.headline(),
            "rules": [self.rule(r) for r in self.verdict.get("rules", [])],
            "rounds": self.rounds(),
            "decoding": decoding.section(self, data.decoding, data.decoding_texts),
            "held": self.held_rows(),
            "table": self.table(),
            "columns": [self.column(w) for w in self.who],
            "differences": self.differences(),
            "share": self.share(),
            "bias": self.bias(),
            "samples": [self.item(i) for i in self.samples()],
            "worst": [self.item(i) for i in self.worst()],
            "ledger": [self.ledger(s) for s in data.stages if s.get("rows_in") is not None],
            "flow": self.flow(),
            "timings": self.timings(),
            "latency": [{**self.column(w), "text": f"{data.latency[w]:.3g}"} for w in self.who if w in data.latency],
            "cards": [c for m in self.metrics if (c := self.card(m))],
        }

    def bias(self) -> Row | None:
        from understudy.evals.bias_page import bias_section

        return bias_section(self.data.bias, self.data.simulated) if self.data.bias else None

    def simulated(self, metric: str, who: str = "") -> bool:
        judged = (metric in JUDGED or self.given_by(metric) == "judge") and "judge" in self.data.simulated
        return judged or (who == "service" and who in self.data.simulated)

    def card(self, metric: str) -> Row | None:
        """What a metric measures, on what that was checked and where it is weak; None for one without a scorer."""
        from understudy.evals import scorers

        if metric not in scorers.names():
            return None
        card, by = scorers.about(metric).card, self.given_by(metric)
        shown = {
            "name": describe(metric).name,
            "measures": card.measures,
            "checked": card.checked_on,
            "weak": card.weak,
        }
        if by is None:
            return shown
        who = "the judge, by a rubric from 1 to 5" if by == "judge" else f"the classifier {by}"
        return shown | {"measures": f"Given by {who}.", "checked": "Not checked by understudy.", "weak": ""}

    def given_by(self, metric: str) -> str | None:
        """Who gave it in place of the own scorer; `not_negative` follows the sentiment."""
        return self.data.by.get("sentiment" if metric == "not_negative" else metric)

    def name(self, who: str) -> str:
        setting = str((self.verdict.get("settings") or {}).get(who, ""))
        return f"{WHO.get(who, who)} ({setting})" if who == "few_shot" and setting else WHO.get(who, who)

    def column(self, who: str) -> Row:
        return {"who": who, "name": self.name(who), "simulated": who == "service" and who in self.data.simulated}

    def cell(self, metric: str, found: Row | None, *, signed: bool = False) -> Row | None:
        """The texts of one interval."""
        if not found:
            return None
        m = describe(metric)
        if signed and m.unit == "%":
            m = replace(m, unit="")
        return {
            "value": shown(m, found["value"], signed=signed),
            "low": shown(m, found["low"], signed=signed, unit=False),
            "high": shown(m, found["high"], signed=signed, unit=False),
            "n": found.get("n"),
            "simulated": self.simulated(metric),
        }

    def headline(self) -> Row:
        found = self.cell(self.data.metric, self.held.get("candidate", {}).get(self.data.metric))
        failed = [r for r in self.verdict.get("rules", []) if not r["passed"]]
        if not self.verdict:
            state, text = "none", "There is no verdict yet."
        elif self.verdict["passed"]:
            state, text = "passed", "The candidate passes the gate."
        else:
            total = len(self.verdict.get("rules", []))
            state, text = "failed", f"The candidate does not pass: {len(failed)} of {total} rules failed."
        return {"state": state, "text": text, "cell": found}

    def rule(self, rule: Row) -> Row:
        from understudy.evals import plots

        figure: Markup | None = None
        metric = describe(rule.get("metric") or self.verdict.get("metric", self.data.metric))
        if rule.get("value") is not None:
            is_bar = not rule["name"].startswith("beats ")
            compared = [
                r for r in self.verdict["rules"] if r["name"].startswith("beats ") and r.get("value") is not None
            ]
            scale = self.axis_for(metric, [rule]) if is_bar else _difference_axis(metric, compared)
            ends = {key: float(rule[key]) for key in ("value", "low", "high")}
            label = f"{rule['name']}: {rule['text']}"
            figure = plots.whisker(scale, **ends, label=label, bar=rule.get("bar"), css=_state(rule["passed"]))
            figure += plots.scale_row(scale, signed=not is_bar)
        return {**rule, "label": _rule_label(rule), "figure": figure, "simulated": self.simulated(self.data.metric)}

    def axis_for(self, metric: Metric, found: Sequence[Row]) -> Axis:
        from understudy.evals import plots

        low = min([f["low"] for f in found] + ([metric.low] if metric.low is not None else []))
        high = max([f["high"] for f in found] + ([metric.high] if metric.high is not None else []))
        return plots.axis(low, high, factor=metric.factor)

    def rounds(self) -> Row:
        from understudy.evals import plots

        metric = self.data.metric
        rows = [r for r in self.data.rounds if metric in r["dev"]]
        places = [(r["round"], r["arm"]) for r in rows]
        figure = None
        if rows:
            scale = self.axis_for(self.main, [r["dev"][metric] for r in rows])
            order = {place: i for i, place in enumerate(places)}
            labels = [(_slot_name(r), f"{r['rows']:,} rows") for r in rows]
            series = [
                plots.Series(arm, css, [self.point(order[r["round"], arm], r) for r in rows if r["arm"] == arm])
                for arm, css in (("targeted", "s1"), ("untargeted", "s2"), ("mitigated", "s2"))
            ]
            said = "; ".join(f"round {r['round']} {r['arm']}: {self.said(r['dev'][metric])}" for r in rows)
            figure = plots.rounds(scale, labels, series, f"{self.main.name} on dev by round. {said}")
        metrics = [m for m in self.metrics if any(m in r["dev"] for r in self.data.rounds)]
        table = [{**r, "cells": [self.cell(m, r["dev"].get(m)) for m in metrics]} for r in self.data.rounds]
        return {
            "figure": figure,
            "rows": table,
            "metrics": [describe(m) for m in metrics],
            "gains": self.gains(),
            "untargeted": any(r["arm"] == "untargeted" for r in rows),
        }

    def gains(self) -> list[Row]:
        """What each round gained over the one before, by rows and by money; a line for each that is known."""
        lines = []
        scale = self.main.factor
        unit = self.main.difference
        for key, name in (
            ("gain", f"Gained over the round before, {unit}"),
            ("gain_per_1000_rows", "... per 1,000 rows"),
            ("cost", "Money for teacher and judge"),
            ("gain_per_money", "Gained per unit of money"),
        ):
            cells = []
            for r in self.data.rounds:
                value = r.get(key)
                value = value["value"] if isinstance(value, dict) else value
                if value is None:
                    cells.append("")
                else:
                    text = f"{value:.4f}" if key == "cost" else f"{value * scale:+.1f}"
                    cells.append(text.replace("-", "\N{MINUS SIGN}"))
            if any(cells):
                lines.append({"name": name, "cells": cells})
        return lines

    def share(self) -> Row | None:
        """The candidate's rate over the service's own, in per cent."""
        found = self.verdict.get("share_of_service")
        return {key: f"{found[key]:.0%}" for key in ("value", "low", "high")} if found else None

    def point(self, slot: int, row: Row) -> Any:
        from understudy.evals import plots

        found = row["dev"][self.data.metric]
        return plots.Point(slot, found["value"], found["low"], found["high"], shown(self.main, found["value"]))

    def said(self, found: Row) -> str:
        m = self.main
        ends = f"{shown(m, found['low'], unit=False)} to {shown(m, found['high'], unit=False)}"
        mark = ", simulated judge" if self.simulated(self.data.metric) else ""
        return f"{shown(m, found['value'])}, interval {ends}{mark}"

    def held_rows(self) -> Row:
        from understudy.evals import plots

        metric, bar = self.data.metric, self.data.thresholds.get("bar")
        rows = [(w, self.held[w][metric]) for w in self.who if metric in self.held[w]]
        if not rows:
            return {"rows": [], "scale": None}
        ends = [f for _, f in rows] + ([{"low": bar, "high": bar}] if bar is not None else [])
        scale = self.axis_for(self.main, ends)
        drawn = []
        for who, found in rows:
            values = {key: float(found[key]) for key in ("value", "low", "high")}
            label = f"{self.name(who)}: {self.main.name} {self.said(found)}"
            figure = plots.whisker(scale, **values, label=label, bar=bar, css="main" if who == "candidate" else "")
            drawn.append({**self.column(who), "cell": self.cell(metric, found), "figure": figure})
        bar_text = f"bar {shown(self.main, bar)}" if bar is not None else ""
        return {"rows": drawn, "scale": plots.scale_row(scale, bar=bar, bar_text=bar_text)}

    def table(self) -> list[Row]:
        return [
            {"metric": describe(m), "cells": [self.cell(m, self.held[w].get(m)) for w in self.who]}
            for m in self.metrics
            if any(m in self.held[w] for w in self.who)
        ]

    def differences(self) -> list[Row]:
        from understudy.evals import plots

        pairs: Mapping[str, Mapping[str, Row]] = self.verdict.get("differences") or {}
        others = [w for w in WHO if f"candidate-{w}" in pairs]
        groups = []
        for metric in self.metrics:
            m = describe(metric)
            rows = [(w, pairs[f"candidate-{w}"][metric]) for w in others if metric in pairs[f"candidate-{w}"]]
            if not rows:
                continue
            scale = _difference_axis(m, [f for _, f in rows])
            drawn = []
            for who, found in rows:
                cell = {**(self.cell(metric, found, signed=True) or {}), "simulated": self.simulated(metric, who)}
                ends = {key: float(found[key]) for key in ("value", "low", "high")}
                label = f"{m.name}, candidate minus {self.name(who)}: {cell['value']}, {cell['low']} to {cell['high']}"
                verdict = _side(m, found)
                figure = plots.whisker(scale, **ends, label=f"{label}, {verdict}", css=verdict)
                drawn.append({"name": self.name(who), "cell": cell, "figure": figure, "side": verdict})
            groups.append({"metric": m, "rows": drawn, "scale": plots.scale_row(scale, signed=True)})
        return groups

    def score_of(self, item: Row) -> tuple[float, float, str]:
        """For order, worst first: the gate's metric, then the judge's grades or facts, then the id."""
        values = _answers(item).get("candidate", {}).get("values", {})
        sign = -1.0 if self.main.better == "lower" else 1.0
        second = [values[m] for m in ("judge_similarity", "judge_precision", "exact_facts", "f1") if m in values]
        return sign * float(values.get(self.data.metric, 0.0)), float(sum(second)), str(item["id"])

    def worst(self) -> list[Row]:
        """The candidate's worst answers; a right answer is none of them, also when there are few wrong ones."""
        scored = [i for i in self.data.items if _answers(i).get("candidate", {}).get("values")]
        wrong = [i for i in scored if self.main.factor != 100.0 or self.score_of(i)[0] < 1.0]
        return sorted(wrong, key=self.score_of)[:WORST]

    def samples(self) -> list[Row]:
        """Neither best nor worst: the first items of every category in turn, by id."""
        by_category: dict[str, list[Row]] = {}
        for item in sorted(self.data.items, key=lambda i: str(i["id"])):
            by_category.setdefault(str(item.get("category") or ""), []).append(item)
        columns = [by_category[c] for c in sorted(by_category)]
        longest = max(map(len, columns), default=0)
        return [column[i] for i in range(longest) for column in columns if i < len(column)][:SAMPLES]

    def item(self, item: Row) -> Row:
        answers = _answers(item)
        order = ["candidate", *[w for w in WHO if w != "candidate"]]
        rows = []
        for who in [w for w in order if w in answers] + sorted(set(answers) - set(WHO)):
            given = answers[who]
            reason = (given.get("reasons") or {}).get("coverage", "")
            rows.append({**self.column(who), "text": given["text"], "scores": self.chips(given), "reason": reason})
        return {**item, "answers": rows, "judge_simulated": "judge" in self.data.simulated}

    def chips(self, given: Row) -> list[Row]:
        values = given.get("values") or {}
        chosen = [m for m in ("coverage", "judge_similarity", "judge_precision", "exact_facts", "loss") if m in values]
        chosen += [m for m in (self.data.metric, "f1") if m in values and m not in chosen and len(chosen) < 3]
        return [self.chip(m, float(values[m])) for m in chosen]

    def chip(self, metric: str, value: float) -> Row:
        m = describe(metric)
        if metric in ("coverage", "exact_facts", "exact", "number") and value in (0.0, 1.0):
            text, state = ("yes", "good") if value else ("no", "bad")
        else:
            text, state = (f"{value:.0f}" if m.unit == "" and value.is_integer() else shown(m, value)), ""
        name = m.name.removeprefix("Judge: ").capitalize() if metric in JUDGED else m.name
        return {"name": name, "text": text, "state": state, "simulated": self.simulated(metric)}

    def ledger(self, stage: Row) -> Row:
        rejected: Mapping[str, int] = stage.get("rejected") or {}
        lost = sorted(rejected.items(), key=lambda kv: (-kv[1], kv[0]))
        balanced = stage["rows_in"] == (stage.get("rows_out") or 0) + sum(rejected.values())
        notes = sorted((stage.get("notes") or {}).items())
        return {**stage, "rejected": lost, "lost": sum(rejected.values()), "balanced": balanced, "notes": notes}

    def flow(self) -> Row:
        """Where the rows came to rest, as bars of all that were read and written."""
        from understudy.evals import plots

        came = {name: count for name, count in self.data.flow.items() if name in SOURCES and count}
        went = {name: count for name, count in self.data.flow.items() if name not in SOURCES and count}
        total = sum(came.values())
        rows = [
            {"name": name, "count": count, "figure": plots.share(count, total, f"{name}: {count:,} of {total:,} rows")}
            for name, count in went.items()
        ]
        return {"came": came, "total": total, "rows": rows, "balanced": total == sum(went.values())}

    def timings(self) -> Row:
        from understudy.evals import plots

        longest = max((float(s["seconds"]) for s in self.data.stages), default=0.0)
        rows = []
        for stage in self.data.stages:
            seconds = float(stage["seconds"])
            css = "cached" if stage["cached"] else ""
            figure = plots.share(seconds, longest, f"{stage['name']}: {seconds:.1f} s", css)
            rows.append({**stage, "seconds": f"{seconds:,.1f}", "figure": figure})
        return {"rows": rows, "total": f"{sum(float(s['seconds']) for s in self.data.stages):,.1f}"}


def _answers(item: Row) -> dict[str, Row]:
    return {who.replace("-", "_"): given for who, given in item["answers"].items()}


def _state(passed: bool) -> str:
    return "better" if passed else "worse"


def _slot_name(row: Row) -> str:
    return {"untargeted": "No aim", "mitigated": "Mitigated"}.get(row["arm"]) or f"Round {row['round']}"


def _rule_label(rule: Row) -> str:
    name = str(rule["name"])
    if name == "bias":
        return "Treats the swapped groups alike"
    if name == "canaries":
        return "Measured by a teacher and a judge that stayed as they were"
    if name == "bar":
        return "Reaches the bar"
    if name.startswith("floor "):
        return f"{describe(name.removeprefix('floor ')).name} reaches its floor"
    if not name.startswith("beats "):
        return f"Has {name}"
    who = name.removeprefix("beats ")
    return f"Beats {WHO.get(who, who).lower()}"


def _side(metric: Metric, found: Row) -> str:
    """Whether the interval lies on the good side of zero, on the bad one, or across it."""
    if found["low"] <= 0 <= found["high"]:
        return "unclear"
    return "better" if (found["low"] > 0) == (metric.better == "higher") else "worse"


def _difference_axis(metric: Metric, found: Sequence[Row]) -> Axis:
    from understudy.evals import plots

    return plots.axis(min(f["low"] for f in found), max(f["high"] for f in found), factor=metric.factor, around=0.0)

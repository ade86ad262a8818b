"""The bias section of the report: effects with intervals, columns for every model, people, entities, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.evals.plots import Axis

Row = dict[str, Any]
NAMES = {
    "candidate": "Candidate",
    "unmitigated": "Before mitigation",
    "base": "Base model",
    "champion": "Champion",
    "service": "Service",
}
MEASURES = {
    "sentiment": "how the answer speaks of the person, 1 very negative to 5 very positive",
    "neutrality": "5 without generalisation or loaded tone",
    "inclusivity": "5 respects the person as named",
}


def bias_section(report: Row, simulated: Sequence[str]) -> Row:
    """What the template prints, from bias.json."""
    cells = report["cells"]
    rules = report["rules"]
    flagged = [c for c in cells if c["flagged"]]
    scale = _scale(cells, float(rules["min_effect"]))
    judged = rules["rubric"] == "judge"
    return {
        "headline": _headline(report, flagged),
        "state": "failed" if flagged or not report["detects"] else "passed",
        "rules": rules,
        "prompts": report["prompts"],
        "units": report["units"],
        "tests": len(cells),
        "groups": [_group(m, cells, rules, scale) for m in rules["measures"]],
        "graded": "the judge" if judged else "word rules",
        "rubric_simulated": judged and "judge" in simulated,
        "columns": [
            {"who": w, "name": NAMES.get(w, w), "simulated": w == "service" and w in simulated} for w in report["who"]
        ],
        "table": [_line(c, report["who"]) for c in cells],
        "examples": report["examples"],
        "people": _people(report["people"]),
        "entities": report["entities"],
        "proposal": report["proposal"],
    }


def signed(value: float) -> str:
    """Two decimals with a true minus sign; no `-0.00`."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _headline(report: Row, flagged: Sequence[Row]) -> str:
    total = len(report["cells"])
    if not report["detects"]:
        return f"Too few people were asked about to flag anything in {total} tests."
    if not flagged:
        return f"None of {total} differences between groups is flagged."
    return f"{len(flagged)} of {total} differences between groups {'is' if len(flagged) == 1 else 'are'} flagged."


def _scale(cells: Sequence[Row], limit: float) -> Axis:
    from understudy.evals import plots

    reach = max([limit * 1.5, *(abs(c[end]) for c in cells for end in ("low", "high"))], default=1.0)
    return plots.axis(-reach, reach, around=0.0)


def _group(measure: str, cells: Sequence[Row], rules: Row, scale: Axis) -> Row:
    from understudy.evals import plots

    rows = []
    for c in (c for c in cells if c["measure"] == measure):
        name = f"{c['bucket']}: {c['a']} \N{MINUS SIGN} {c['b']}"
        text = f"{signed(c['effect'])} [{signed(c['low'])}, {signed(c['high'])}]"
        label = f"{measure}, {name}: {text}, corrected p {c['p_corrected']:.2g}{', flagged' if c['flagged'] else ''}"
        figure = plots.effect(scale, (c["low"], c["effect"], c["high"]), label, rules["min_effect"], flag=c["flagged"])
        rows.append({**c, "name": name, "figure": figure, **_texts(c["effect"], c["low"], c["high"])})
    return {"name": measure, "says": MEASURES[measure], "rows": rows, "scale": plots.scale_row(scale, signed=True)}


def _texts(value: float, low: float, high: float) -> Row:
    return {"value_text": signed(value), "low_text": signed(low), "high_text": signed(high)}


def _line(cell: Row, who: Sequence[str]) -> Row:
    """One line of the table: the effect in every model's answers."""
    found = [cell["by"].get(w) for w in who]
    columns = [_texts(f["value"], f["low"], f["high"]) if f else None for f in found]
    return {**cell, "columns": columns}


def _people(found: Row | None) -> Row | None:
    if not found:
        return None
    rows = []
    for measure, of in found["by"].items():
        machine = {name: _interval(of["machine"].get(name)) for name in ("weighted_kappa", "spearman")}
        whole = f"mean of {of['raters']} raters and the machine"
        rows.append({"measure": measure, "who": whole, "n": of["answers"], **machine})
        for pair in of["pairs"]:
            kappa = pair["weighted_kappa"]
            shown = {"weighted_kappa": _interval(kappa), "spearman": "", "n": kappa["n"] if kappa else 0}
            rows.append({"measure": measure, "who": " and ".join(pair["raters"]), **shown})
    return {"rows": rows, "scores": found["scores"], "unmatched": found["unmatched"]}


def _interval(found: Row | None) -> str:
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]" if found else "\N{EN DASH}"

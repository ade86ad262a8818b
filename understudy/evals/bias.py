"""The bias report: paired differences between groups, tested together, with every answer and score kept.

An item is one question about one person, asked once for every group. Its differences are averaged within a unit (a set
of matched names), units are flipped in sign, and all tests of the candidate are corrected by Holm: a model that treats
the groups alike is flagged at all with probability alpha at most.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from understudy.config import BiasRules
from understudy.core.records import Example, digest, read_examples, read_jsonl, write_jsonl
from understudy.errors import DataError
from understudy.evals import bias_people, permutation, rubric, stats
from understudy.evals.bias_entities import entity_analysis, without_name
from understudy.evals.judge import Judge
from understudy.evals.scorers import sentiment

Row = dict[str, Any]
Progress = Callable[[int, int], None]
REACH = 4.0
"""The largest difference of two scores on a five-point scale."""
SHEET = 200
"""Answers on the blank sheet for people."""


@dataclass(frozen=True)
class Inputs:
    """Folders: the prompts, and each model's answers to them, the candidate's first of all."""

    prompts: Path
    answers: Sequence[Path]
    people: Path | None = None
    mitigate: str = ""


def assess(
    cfg: BiasRules, inputs: Inputs, out: Path, *, judge: Judge | None = None, progress: Progress | None = None
) -> Row:
    """Write rows.jsonl, bias.json and sheet.csv; returns the facts that the gate reads.

    Raises DataError ANSWERS_MISMATCH when answers are not those of the prompts, RemoteError for an unusable judge.
    """
    prompts = {e.id: e for e in read_examples(inputs.prompts / "prompts.jsonl")}
    words = json.loads((inputs.prompts / "words.json").read_text("utf-8"))
    who = [str(json.loads((folder / "answers.json").read_text("utf-8"))["model"]) for folder in inputs.answers]
    rows = [r for name, folder in zip(who, inputs.answers, strict=True) for r in _rows(name, folder, prompts)]
    _measure(cfg, rows, prompts, words, judge, progress)
    write_jsonl(out / "rows.jsonl", rows)
    cells = _cells(cfg, rows)
    flagged = [c for c in cells if c["flagged"]]
    candidate = [r for r in rows if r["who"] == "candidate"]
    report = {
        "who": who,
        "rules": cfg.model_dump(
            mode="json", include={"alpha", "min_effect", "confidence", "block", "rubric", "measures"}
        ),
        "prompts": sum(bool(e.meta["attribute"]) for e in prompts.values()),
        "units": min((c["n"] for c in cells), default=0),
        "detects": any(permutation.detectable(c["n"], len(cells), cfg.alpha) for c in cells),
        "cells": cells,
        "entities": entity_analysis(candidate, prompts),
        "people": bias_people.compare(inputs.people, rows, cfg.confidence) if inputs.people else None,
        "proposal": _proposal(flagged, inputs.mitigate),
        "examples": _examples(flagged, candidate),
    }
    text = json.dumps(report, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    (out / "bias.json").write_text(text, "utf-8")
    bias_people.write_sheet(out / "sheet.csv", candidate, SHEET)
    worst = max(flagged, key=lambda c: abs(c["effect"]), default=None)
    return {
        "tests": len(cells),
        "flagged": len(flagged),
        "detects": report["detects"],
        "block": cfg.block,
        "alpha": cfg.alpha,
        "min_effect": cfg.min_effect,
        "worst": describe(worst) if worst else "",
        "rubric": cfg.rubric,
    }


def describe(cell: Row) -> str:
    """One cell in words: `sentiment in teaching style: female minus male -0.52 [-0.71, -0.33], corrected p 0.0004`."""
    return (
        f"{cell['measure']} in {cell['bucket']!r}: {cell['a']} minus {cell['b']} is {cell['effect']:+.2f}"
        f" [{cell['low']:+.2f}, {cell['high']:+.2f}] of 5 points, {cell['n']} units,"
        f" corrected p {cell['p_corrected']:.2g}"
    )


def _rows(who: str, folder: Path, prompts: Mapping[str, Example]) -> list[Row]:
    given = list(read_jsonl(folder / "answers.jsonl"))
    if odd := sorted({a["id"] for a in given} ^ prompts.keys()):
        what = f"{who} and the bias prompts differ in {len(odd)} items, e.g. {odd[0]!r}"
        raise DataError("ANSWERS_MISMATCH", folder.name, what, "run the plan again")
    rows = []
    for answer in given:
        meta = prompts[answer["id"]].meta
        kept = {k: meta[k] for k in ("item", "attribute", "group", "entity", "bucket", "question", "language")}
        identity = digest([who, answer["id"], answer.get("sample", 0), answer["text"]], 12)
        rows.append(
            {
                "answer_id": identity,
                "who": who,
                "id": answer["id"],
                "sample": answer.get("sample", 0),
                **kept,
                "unit": f"{meta['language']}:{meta['unit']}",
                "text": answer["text"],
                "values": {},
                "reasons": {},
            }
        )
    return rows


def _measure(
    cfg: BiasRules,
    rows: list[Row],
    prompts: Mapping[str, Example],
    words: Mapping[str, Mapping[str, list[str]]],
    judge: Judge | None,
    progress: Progress | None,
) -> None:
    """Fill `values` and `reasons` of every row."""
    graded = set(cfg.measures) - {"sentiment"}
    if not graded:
        grades: list[rubric.Grades | None] = [None] * len(rows)
    elif judge is not None:
        grades = list(rubric.by_judge(judge, [(prompts[r["id"]], r["text"]) for r in rows], progress))
    else:
        grades = [rubric.by_rules(_asked(prompts[r["id"]]), _unnamed(prompts, r), _others(r, words)) for r in rows]
    for row, grade in zip(rows, grades, strict=True):
        if "sentiment" in cfg.measures:
            row["values"]["sentiment"] = sentiment.level(_unnamed(prompts, row))
        if grade:
            row["values"] |= {name: getattr(grade, name) for name in ("neutrality", "inclusivity") if name in graded}
            row["reasons"]["rubric"] = grade.reason
    if progress:
        progress(len(rows), len(rows))


def _unnamed(prompts: Mapping[str, Example], row: Row) -> str:
    """The answer without the person's name: to a word list `Grace` is praise, and half of the prompts swap names."""
    return without_name(row["text"], str(prompts[row["id"]].meta["name"]))


def _asked(example: Example) -> str:
    return example.prompt[-1]["content"]


def _others(row: Row, words: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """Words of the groups that the prompt's person is not of, less those that are its own group's too."""
    if not row["attribute"]:
        return []
    groups = words[f"{row['language']} {row['attribute']}"]
    own = set(groups[row["group"]])
    return sorted({w for group, of in groups.items() if group != row["group"] for w in of} - own)


def _cells(cfg: BiasRules, rows: Sequence[Row]) -> list[Row]:
    """One test for each measure, bucket and pair of groups; the candidate's are corrected together."""
    table = _table(rows)
    cells: list[Row] = []
    for measure in cfg.measures:
        for bucket, attribute, groups in _places(rows):
            for a, b in combinations(groups, 2):
                columns = {who: _differences(of, (measure, bucket, attribute), a, b) for who, of in table.items()}
                if not columns["candidate"]:
                    continue
                cell: Row = {"measure": measure, "bucket": bucket, "attribute": attribute, "a": a, "b": b}
                cells.append(cell | _tested(columns, cfg.confidence))
    for cell, p in zip(cells, permutation.holm([c["p"] for c in cells]), strict=True):
        cell["p_corrected"] = round(p, 6)
        cell["flagged"] = p < cfg.alpha and abs(cell["effect"]) >= cfg.min_effect
    return cells


def _tested(columns: Mapping[str, Mapping[str, float]], confidence: float) -> Row:
    of = columns["candidate"]
    found = stats.mean_difference([of[u] for u in sorted(of)], REACH, confidence).to_json()
    p = permutation.sign_flip([of[u] for u in sorted(of)])
    others = {
        who: stats.mean_difference([d[u] for u in sorted(d)], REACH, confidence).to_json() if d else None
        for who, d in columns.items()
    }
    return {"effect": found.pop("value"), **found, "p": round(p, 6), "by": others}


_Table = dict[str, dict[tuple[str, str, str], dict[tuple[str, str], dict[str, list[float]]]]]
"""who -> (measure, bucket, attribute) -> (unit, item) -> group -> scores of the samples"""


def _table(rows: Sequence[Row]) -> _Table:
    table: _Table = {}
    for row in rows:
        of = table.setdefault(row["who"], {})
        if not row["attribute"]:
            continue
        for measure, value in row["values"].items():
            items = of.setdefault((measure, row["bucket"], row["attribute"]), {})
            scores = items.setdefault((row["unit"], row["item"]), {})
            scores.setdefault(row["group"], []).append(float(value))
    return table


def _places(rows: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """(bucket, attribute, groups) in the order of the prompts."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        if row["attribute"]:
            found.setdefault((row["bucket"], row["attribute"]), {})[row["group"]] = None
    return [(bucket, attribute, list(groups)) for (bucket, attribute), groups in found.items()]


def _differences(of: Any, place: tuple[str, str, str], a: str, b: str) -> dict[str, float]:
    """Mean over a unit's items of a's score less b's, by unit; rounded so that equal scores differ by exactly zero."""
    units: dict[str, list[float]] = {}
    for (unit, _), groups in of.get(place, {}).items():
        if a in groups and b in groups:
            units.setdefault(unit, []).append(_mean(groups[a]) - _mean(groups[b]))
    return {unit: round(_mean(values), 9) for unit, values in units.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _proposal(flagged: Sequence[Row], command: str) -> Row | None:
    """What to do about the flags: which attributes the training rows should be balanced in, and by which command."""
    if not flagged:
        return None
    return {"attributes": sorted({c["attribute"] for c in flagged}), "command": command}


def _examples(flagged: Sequence[Row], candidate: Sequence[Row]) -> list[Row]:
    """For each flagged cell the item with the widest difference in the cell's direction: both answers."""
    found = []
    for cell in flagged[:6]:
        items: dict[str, dict[str, Row]] = {}
        for row in candidate:
            if (row["bucket"], row["attribute"]) == (cell["bucket"], cell["attribute"]) and row["sample"] == 0:
                items.setdefault(row["item"], {})[row["group"]] = row
        sign = 1 if cell["effect"] > 0 else -1

        def width(of: dict[str, Row], cell: Row = cell, sign: int = sign) -> float:
            return sign * float(of[cell["a"]]["values"][cell["measure"]] - of[cell["b"]]["values"][cell["measure"]])

        item = max(items.values(), key=lambda of: (width(of), of[cell["a"]]["item"]))
        sides = [{k: item[g][k] for k in ("group", "question", "text", "values")} for g in (cell["a"], cell["b"])]
        found.append({"cell": {k: cell[k] for k in ("measure", "bucket", "a", "b")}, "sides": sides})
    return found

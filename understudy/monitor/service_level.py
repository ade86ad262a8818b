"""The service level from the traffic log: who answered, how fast, what failed, what people thought of it."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from typing import Any

from understudy.evals.stats import wilson

CALLERS_FAULT = "status BETWEEN 400 AND 499"
PERCENTILES = (50, 95, 99)


def service_level(db: sqlite3.Connection, *, after: int = 0, since: str = "") -> dict[str, Any]:
    """Figures of the rows beyond sequence number `after` and, when given, not before the moment `since`.

    `failover` counts the answers that the service should have given and the understudy gave; `errors` what failed
    without the caller's fault (upstream_lost, overload, our own). Rates have Wilson intervals, times are milliseconds.
    """
    where, values = "seq > ? AND at >= ?", [after, since]

    def count(condition: str) -> int:
        return int(db.execute(f"SELECT count(*) FROM requests WHERE {where} AND ({condition})", values).fetchone()[0])

    requests, callers = count("1"), count(CALLERS_FAULT)
    answered = count("error IS NULL")
    taken_over = count("error IS NULL AND failover IS NOT NULL")
    errors = count(f"error IS NOT NULL AND NOT ({CALLERS_FAULT})")
    return {
        "requests": requests,
        "answered": dict(_grouped(db, "side", f"{where} AND error IS NULL", values)),
        "failover": _rate(taken_over, answered),
        "failover_reasons": dict(_grouped(db, "failover", f"{where} AND failover IS NOT NULL", values)),
        "errors": _rate(errors, requests - callers),
        "error_codes": dict(_grouped(db, "error", f"{where} AND error IS NOT NULL", values)),
        "first_token_ms": _percentiles(db, "first_token_ms", where, values),
        "total_ms": _percentiles(db, "total_ms", where, values),
        "tokens": _tokens(db, where, values),
        "ratings": dict(_grouped(db, "rating", f"{where} AND rating IS NOT NULL", values)),
        "consent": dict(_grouped(db, "consent", where, values)),
        "with_content": count("messages IS NOT NULL"),
    }


def _grouped(db: sqlite3.Connection, column: str, where: str, values: list[Any]) -> Counter[str]:
    query = f"SELECT {column}, count(*) FROM requests WHERE {where} GROUP BY {column} ORDER BY {column}"
    return Counter({str(name): int(n) for name, n in db.execute(query, values)})


def _rate(part: int, whole: int) -> dict[str, Any] | None:
    return {"count": part, **wilson(part, whole).to_json()} if whole > 0 else None


def _percentiles(db: sqlite3.Connection, column: str, where: str, values: list[Any]) -> dict[str, dict[str, float]]:
    """Nearest-rank percentiles of the answered requests, by who answered."""
    found: dict[str, list[float]] = {}
    query = f"SELECT side, {column} FROM requests WHERE {where} AND error IS NULL AND {column} IS NOT NULL ORDER BY 2"
    for side, value in db.execute(query, values):
        found.setdefault(str(side), []).append(value)
    return {
        side: {f"p{p}": times[max(0, math.ceil(p / 100 * len(times)) - 1)] for p in PERCENTILES}
        for side, times in sorted(found.items())
    }


def _tokens(db: sqlite3.Connection, where: str, values: list[Any]) -> dict[str, int]:
    sums = "coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0)"
    prompt, completion = db.execute(f"SELECT {sums} FROM requests WHERE {where}", values).fetchone()
    return {"prompt": int(prompt), "completion": int(completion)}


def lines(level: dict[str, Any]) -> list[str]:
    """The figures for a terminal."""
    shown = [f"requests   {level['requests']}  ({_listed(level['answered']) or 'none answered'})"]
    for name in ("failover", "errors"):
        if rate := level[name]:
            shares = " [{low:.1%}, {high:.1%}]".format(**rate)
            shown.append(f"{name:<10} {rate['count']} of {rate['n']}: {rate['value']:.1%}{shares}")
    for name, title in (("failover_reasons", "  why"), ("error_codes", "  codes")):
        if level[name]:
            shown.append(f"{title:<10} {_listed(level[name])}")
    for name, title in (("first_token_ms", "1st token"), ("total_ms", "whole")):
        for side, times in level[name].items():
            shown.append(f"{title:<10} {side}: " + ", ".join(f"{k} {v:.0f} ms" for k, v in times.items()))
    shown.append(f"tokens     {level['tokens']['prompt']} in, {level['tokens']['completion']} out")
    shown.append(f"ratings    {_listed(level['ratings']) or 'none'}")
    shown.append(f"consent    {_listed(level['consent']) or 'none'}; content kept of {level['with_content']}")
    return shown


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())

"""`make bench-horoscope`: the daily forecasts from nothing, then a week in which every day brings one new day's pages.

The two sites log every request, so that what a day asks for is seen and not believed. Writes `results/horoscope.json`
and the tables `horoscope` and `horoscope-week`; exit status 1 when a ledger does not balance, or a day asks for an
earlier day's pages.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.project import SCRATCH, Project, balanced, machine, save

TODAY = date(2026, 11, 20)
"""The first run's day; fixed, so that two measurements read the same pages."""
DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)|(\d\d)-(\d\d)-(\d{4})")
DATA_STEPS = re.compile(r"^(collect|clean)-web-\d")
NAMES = {"base": "base alone", "candidate": "trained on the forecasts"}


@contextmanager
def sites(folder: Path, today: date) -> Iterator[Path]:
    """Both sites as they are on `today`; yields the file that every request is logged to."""
    log = folder / f"requests-{today}.log"
    with open(log, "wb") as file:
        command = [sys.executable, str(folder / "site.py"), "--today", today.isoformat(), "--log"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file)
        assert process.stdout
        try:
            process.stdout.readline()  # "two sites at ...": they listen
            yield log
        finally:
            process.terminate()
            process.wait()


def days_asked(log: Path) -> set[date]:
    """The days of all pages that were asked for."""
    days = set[date]()
    for line in log.read_text().splitlines():
        for found in DATE.finditer(line.partition('"GET ')[2]):
            year, month, day = (found[1], found[2], found[3]) if found[1] else (found[6], found[5], found[4])
            days.add(date(int(year), int(month), int(day)))
    return days


def run(project: Project, today: date) -> dict[str, Any]:
    """One day's run: its time, what it asked the sites for, which steps ran and which were there."""
    with sites(project.path, today) as log:
        start = time.perf_counter()
        done = project.run("--as-of", today.isoformat())
        seconds = time.perf_counter() - start
    shown = project.show()
    fresh = [s["name"] for s in shown["stages"] if not s["cached"]]
    return {
        "day": today.isoformat(),
        "seconds": round(seconds, 1),
        "status": done.status,
        "requests": sum('"GET ' in line for line in log.read_text().splitlines()),
        "days_asked": sorted(day.isoformat() for day in days_asked(log)),
        "data_steps_run": sum(bool(DATA_STEPS.match(name)) for name in fresh),
        "data_steps_reused": sum(bool(DATA_STEPS.match(s["name"])) and s["cached"] for s in shown["stages"]),
        "ledger_balanced": balanced(shown),
        "shown": shown,
    }


def measure(days: int) -> dict[str, Any]:
    project = Project("horoscope", SCRATCH / "bench" / "horoscope")
    first = run(project, TODAY)
    week = [run(project, TODAY + timedelta(days=i + 1)) for i in range(days)]
    shown = first.pop("shown")
    for day in week:
        day["passed"] = (day.pop("shown")["verdict"] or {}).get("passed")
    return {
        "machine": machine(),
        "first": first | {"passed": (shown["verdict"] or {}).get("passed")},
        "week": week,
        "decoding": shown["decoding"],
        "held": shown["held"],
        "differences": shown["differences"],
        "simulated": shown["simulated"],
    }


def render(result: dict[str, Any]) -> str:
    """Models on held, then settings on dev."""
    metrics = [m for m in result["held"]["candidate"] if m in result["decoding"][0]["dev"]]
    head = ["", *(m.replace("_", " ") for m in metrics)]
    rows = [
        [f"held, {NAMES.get(name, name)}", *(tables.interval(values.get(m)) for m in metrics)]
        for name, values in result["held"].items()
    ]
    for setting in result["decoding"]:
        chosen = ", chosen" if setting["chosen"] else ""
        seconds = f", {setting['seconds_per_answer']:.2f} s a text" if setting["seconds_per_answer"] else ""
        label = f"dev, {setting['setting']}{chosen}{seconds}"
        rows.append([label, *(tables.interval(setting["dev"].get(m)) for m in metrics)])
    return tables.table(head, rows)


def render_week(result: dict[str, Any]) -> str:
    head = ["day", "time", "requests", "of days", "data steps run", "data steps reused", "gate"]
    rows = []
    for day in [result["first"], *result["week"]]:
        asked = day["days_asked"]
        which = asked[0] if len(asked) == 1 else f"{asked[0]} to {asked[-1]}" if asked else tables.MISSING
        gate = "passed" if day["passed"] else "failed"
        counts = [str(day[key]) for key in ("data_steps_run", "data_steps_reused")]
        rows.append([day["day"], tables.seconds(day["seconds"]), str(day["requests"]), which, *counts, gate])
    return tables.table(head, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="The horoscope example, and a week of daily runs.")
    parser.add_argument("--days", type=int, default=6, help="days after the first")
    result = measure(parser.parse_args().days)
    contents = {"horoscope": render(result), "horoscope-week": render_week(result)}
    pages = sorted({page for name, content in contents.items() for page in tables.update(name, content)})
    print(*contents.values(), sep="\n\n")
    print(f"\nwritten: {save('horoscope', result).name}, tables in {', '.join(pages) or 'no page'}")
    only_new = all(day["days_asked"] == [day["day"]] for day in result["week"])
    return 0 if only_new and all(day["ledger_balanced"] for day in [result["first"], *result["week"]]) else 1


if __name__ == "__main__":
    sys.exit(main())

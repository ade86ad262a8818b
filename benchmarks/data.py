"""`make bench-data`: clean + dedupe + split over generated documents, beside three peers that only deduplicate.

Every engine is its own process; turns are interleaved, so that a busy minute hits all. Peers live in environments of
their own, which the first run makes. Writes `results/data.json` and the table `data`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import tables
from benchmarks.duplicates import Label, generate, quality
from benchmarks.project import ROOT, SCRATCH, machine, save
from understudy.core.records import Document, write_jsonl

WORK = SCRATCH / "bench-data"
TIMEOUT_S = 1200.0


@dataclass(frozen=True, slots=True)
class Engine:
    """A script and what its environment needs; without packages it runs in ours."""

    name: str
    title: str
    script: str
    packages: tuple[str, ...] = ()

    def python(self) -> str:
        """The interpreter of this engine; makes its environment when it is not there or was not finished."""
        if not self.packages:
            return sys.executable
        home = WORK / "environments" / self.name
        ready, python = home / ".ready", home / "bin" / "python"
        if not ready.is_file() or ready.read_text() != " ".join(self.packages):
            print(f"making the environment of {self.name}", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *self.packages], check=True)
            ready.write_text(" ".join(self.packages))
        return str(python)

    def versions(self) -> dict[str, str]:
        names = [package.split("[")[0].split("==")[0] for package in self.packages] or ["understudy"]
        program = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
        done = subprocess.run([self.python(), "-c", program, *names], check=True, capture_output=True, text=True)
        return dict(zip(names, done.stdout.split(), strict=True))


ENGINES = (
    Engine("ours", "understudy: clean + dedupe + split", "ours.py"),
    Engine(
        "datatrove", "datatrove MinHash, 2 workers", "peers/datatrove_minhash.py", ("datatrove[processing]", "orjson")
    ),
    Engine("datasets", "datasets + datasketch script", "peers/datasets_datasketch.py", ("datasets", "datasketch")),
    Engine("rensa", "Polars + rensa script", "peers/polars_rensa.py", ("polars", "rensa")),
)


def prepared(rows: int) -> tuple[Path, list[tuple[Document, Label]]]:
    """The generated file and its labels; `split` draws all groups alike, so the file stands alone in its folder."""
    target = WORK / f"rows-{rows}" / "rows.jsonl"
    labelled = list(generate(rows))
    write_jsonl(target, (document for document, _ in labelled))
    return target, labelled


def measure(engine: Engine, rows: Path) -> dict[str, Any]:
    """One turn: seconds as the script counts them, processor seconds and peak memory of all its processes, kept ids.

    Processor time holds the start of the interpreters too, and for ours `hold`; a busy machine changes it little.
    """
    out = WORK / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    command = [engine.python(), str(ROOT / "benchmarks" / engine.script), str(rows), str(out)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "home"), "TOKENIZERS_PARALLELISM": "false"}
    if not engine.packages:
        environment["PYTHONPATH"] = str(ROOT)
    with open(out / "log.txt", "w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, text=True)
        peak, start, spent = 0, time.perf_counter(), dict[int, float]()
        while process.poll() is None:
            peak = max(peak, tree_bytes(process.pid, spent))
            if time.perf_counter() - start > TIMEOUT_S:
                process.kill()
            time.sleep(0.2)
        log.seek(0)
        said = log.read()
    if process.returncode:
        raise RuntimeError(f"{engine.name} ended with {process.returncode}\n{said[-2000:]}")
    stages = out / "stages.json"
    return {
        "processor_s": sum(spent.values()),
        "seconds": float(said.split()[-1]),
        "peak_mb": peak / 1e6,
        "kept": set((out / "kept.txt").read_text().split("\n")),
        "stages": json.loads(stages.read_text()) if stages.is_file() else {},
    }


def tree_bytes(pid: int, spent: dict[int, float]) -> int:
    """Memory that a process and its children hold alone and their part of what they share (PSS), in bytes.

    Notes in `spent` the processor seconds of each, which go with it when it ends.
    """
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                used = process.cpu_times()
                spent[process.pid] = used.user + used.system
                full = process.memory_full_info()
                total += getattr(full, "pss", full.uss)
            except psutil.Error:
                continue
    except psutil.Error:
        return total
    return total


def summary(turns: list[dict[str, Any]], labelled: list[tuple[Document, Label]], engine: Engine) -> dict[str, Any]:
    rates = [len(labelled) / turn["seconds"] for turn in turns]
    first = turns[0]
    stages = {name: statistics.median(t["stages"][name] for t in turns) for name in first["stages"]}
    return {
        "title": engine.title,
        "versions": engine.versions(),
        "documents_per_s": round(statistics.median(rates)),
        "documents_per_s_turns": [round(rate) for rate in rates],
        "processor_microseconds_a_document": round(min(t["processor_s"] for t in turns) / len(labelled) * 1e6, 1),
        "peak_mb": round(max(turn["peak_mb"] for turn in turns)),
        "microseconds_a_document": {name: round(s / len(labelled) * 1e6, 1) for name, s in stages.items()},
        "same_rows_in_every_turn": all(turn["kept"] == first["kept"] for turn in turns),
        **{name: round(value, 4) for name, value in asdict(quality(labelled, first["kept"])).items()},
    }


def render(result: dict[str, Any]) -> str:
    """Engines side by side, then our stages."""
    ours = result["engines"].get("ours")
    header = [
        "",
        "documents/s",
        "ours is faster by",
        "processor time a document",
        "peak memory",
        "precision",
        "recall",
        "templated rows removed",
    ]
    rows = []
    for name, engine in result["engines"].items():
        turns = engine["documents_per_s_turns"]
        faster = tables.MISSING if name == "ours" or not ours else f"{times(ours, engine):.1f}x"
        rows.append(
            [
                engine["title"],
                f"{engine['documents_per_s']:,} ({min(turns):,} to {max(turns):,})",
                faster,
                f"{engine['processor_microseconds_a_document']:,.0f} µs",
                f"{engine['peak_mb']:,} MB",
                f"{engine['precision']:.3f}",
                f"{engine['recall']:.3f}",
                f"{engine['templated_removed']:.1%}",
            ]
        )
    content = tables.table(header, rows)
    if ours:
        stages = [[name, f"{value:.0f} µs"] for name, value in ours["microseconds_a_document"].items()]
        content += "\n\n" + tables.table([f"wall time a document, {result['machine']['cores']} cores", ""], stages)
    return content


def times(ours: dict[str, Any], peer: dict[str, Any]) -> float:
    """How many times the peer's documents/s ours are: the median over the turns that both had."""
    pairs = zip(ours["documents_per_s_turns"], peer["documents_per_s_turns"], strict=False)
    return float(statistics.median(a / b for a, b in pairs))


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed, memory and quality of the data stages, beside three peers.")
    parser.add_argument("--rows", type=int, default=200_000, help="documents; 5,000 at least, below 200,000 no file")
    parser.add_argument("--turns", type=int, default=3, help="how often each engine runs, where the minutes allow it")
    parser.add_argument("--minutes", type=float, default=10.0, help="no engine starts again when this would be passed")
    parser.add_argument("--only", choices=[e.name for e in ENGINES], action="append", help="some engines; no file")
    arguments = parser.parse_args()
    engines = [e for e in ENGINES if arguments.only is None or e.name in arguments.only]
    for engine in engines:
        print(engine.name, engine.versions(), file=sys.stderr, flush=True)
    rows, labelled = prepared(arguments.rows)
    turns: dict[str, list[dict[str, Any]]] = {engine.name: [] for engine in engines}
    start = time.perf_counter()
    for turn in range(arguments.turns):
        for engine in engines:
            took = turns[engine.name][0]["seconds"] if turn else 0.0
            if turn and time.perf_counter() - start + 1.2 * took > arguments.minutes * 60:
                continue
            turns[engine.name].append(measure(engine, rows))
            print(
                f"turn {turn + 1}: {engine.name} {turns[engine.name][-1]['seconds']:.1f} s", file=sys.stderr, flush=True
            )
    result: dict[str, Any] = {
        "machine": machine(),
        "rows": len(labelled),
        "characters": round(statistics.mean(len(document.text) for document, _ in labelled)),
        "engines": {engine.name: summary(turns[engine.name], labelled, engine) for engine in engines},
    }
    content = render(result)
    print(content)
    if arguments.rows >= 200_000 and arguments.only is None:
        print(
            f"\nwritten: {save('data', result).name}, table in {', '.join(tables.update('data', content)) or 'no page'}"
        )
    ours = result["engines"].get("ours")
    return 0 if ours is None or good(ours) else 1


def good(ours: dict[str, Any]) -> bool:
    """Whether the three quality figures and the memory are what we promise; speed depends on the machine."""
    clean = ours["precision"] >= 0.98 and ours["recall"] >= 0.95 and ours["templated_removed"] <= 0.01
    return bool(clean and ours["peak_mb"] < 1500 and ours["same_rows_in_every_turn"])


if __name__ == "__main__":
    sys.exit(main())

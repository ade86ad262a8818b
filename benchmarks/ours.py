"""Ours: clean, dedupe, split and hold as a run does them, each artifact committed. Usage: ROWS OUT; prints seconds."""

import json
import sys
import time
from pathlib import Path

from understudy import config as c
from understudy import stages as s
from understudy.core.artifact import Artifact, Corpus, Store
from understudy.core.records import Example, Ledger, digest, read_jsonl, write_jsonl
from understudy.core.stage import Stage

PAIRS = 240


def coverage(folder: Path) -> Corpus:
    """A small coverage set, so that split has something to divide."""
    turns = [("user", "Which number comes after {}?"), ("assistant", "After {} comes the next one.")]
    pairs = [
        Example(f"pair-{i}", [{"role": role, "content": text.format(i)} for role, text in turns]) for i in range(PAIRS)
    ]
    write_jsonl(folder / "rows.jsonl", pairs)
    return Corpus(folder, ledger=Ledger(PAIRS, PAIRS))


def main() -> None:
    rows, out = Path(sys.argv[1]), Path(sys.argv[2])
    given = Corpus(rows.parent)
    pairs, store, times = coverage(out / "coverage"), Store(out / "store"), dict[str, float]()

    def committed(stage: Stage, config: object, *inputs: Artifact) -> Artifact:
        start = time.perf_counter()
        name, fingerprint = stage.name, digest(stage.name)
        staged = store.stage_directory(name, fingerprint)
        header = {"name": name, "stage": name, "revision": stage.revision, "fingerprint": fingerprint, "inputs": {}}
        artifact = store.commit(stage(config, *inputs, staged), staged, header)
        times[name] = time.perf_counter() - start
        return artifact

    cleaned = committed(s.clean, c.CleanConfig(), given)
    unique = committed(s.dedupe, c.DedupeConfig(), cleaned)
    committed(s.split, c.SplitConfig(), unique, pairs)
    committed(s.hold, c.SplitConfig(), unique, pairs)
    (out / "kept.txt").write_text("\n".join(row["id"] for row in read_jsonl(unique.path / "rows.jsonl")))
    (out / "stages.json").write_text(json.dumps(times))
    print(times["clean"] + times["dedupe"] + times["split"])


if __name__ == "__main__":
    main()

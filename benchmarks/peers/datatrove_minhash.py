"""Peer: datatrove's four MinHash steps, whitespace tokenizer, two workers. Usage: ROWS OUT; prints seconds.

`n_grams` is set to 2 and bands to 25 x 4, which fit 3-8 % word edits; the defaults (5-grams, 14 x 8) find few of those.
"""

import json
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.logging import logger
from datatrove.utils.word_tokenizers import WordTokenizer

BUCKETS, WORKERS = 25, 2


class Whitespace(WordTokenizer):
    """Plain `split`: datatrove's own tokenizer of this name runs spaCy and takes several times as long."""

    def word_tokenize(self, text):
        return text.split()

    def sent_tokenize(self, text):
        return [text]

    def span_tokenize(self, text):
        return [(0, len(text))]


def main() -> None:
    rows, out = Path(sys.argv[1]), Path(sys.argv[2])
    logger.remove()
    source = out / "in"
    source.mkdir(parents=True)
    lines = rows.read_bytes().splitlines(keepends=True)
    half = len(lines) // WORKERS
    for i in range(WORKERS):  # one file for each worker; not counted
        part = lines[i * half : (i + 1) * half if i + 1 < WORKERS else None]
        (source / f"{i}.jsonl").write_bytes(b"".join(part))
    config = MinhashConfig(n_grams=2, num_buckets=BUCKETS, hashes_per_bucket=4)
    reader = JsonlReader(str(source))
    folder = {name: str(out / name) for name in ("signatures", "buckets", "clusters", "kept")}
    start = time.perf_counter()
    steps = [
        ([reader, MinhashDedupSignature(folder["signatures"], config, language=Whitespace())], WORKERS),
        ([MinhashDedupBuckets(folder["signatures"], folder["buckets"], config=config)], BUCKETS),
        ([MinhashDedupCluster(folder["buckets"], folder["clusters"], config=config)], 1),
        ([reader, MinhashDedupFilter(folder["clusters"]), JsonlWriter(folder["kept"], compression=None)], WORKERS),
    ]
    for i, (pipeline, tasks) in enumerate(steps):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=WORKERS, logging_dir=str(out / f"logs{i}")).run()
    seconds = time.perf_counter() - start
    kept = [json.loads(line)["id"] for path in sorted(Path(folder["kept"]).glob("*.jsonl")) for line in path.open()]
    (out / "kept.txt").write_text("\n".join(kept))
    print(seconds)


if __name__ == "__main__":
    main()

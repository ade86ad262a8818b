"""Peer: a Polars + `rensa` script without a framework. Usage: ROWS OUT; prints seconds."""

import sys
import time
from pathlib import Path

import polars as pl
from rensa import RMinHash, RMinHashLSH

BANDS, PER_BAND = 25, 4


def main() -> None:
    rows, out = Path(sys.argv[1]), Path(sys.argv[2])
    start = time.perf_counter()
    data = pl.read_ndjson(rows)
    data = data.with_columns(pl.col("text").str.normalize("NFC").str.replace_all(r"\s+", " ").str.strip_chars())
    data = data.unique("text", keep="first", maintain_order=True)
    index = RMinHashLSH(0.6, BANDS * PER_BAND, BANDS)
    keep = []
    for i, words in enumerate(data["text"].str.to_lowercase().str.split(" ")):
        listed = words.to_list()
        minhash = RMinHash(BANDS * PER_BAND, 1)
        minhash.update([f"{a} {b}" for a, b in zip(listed, listed[1:], strict=False)])
        if not index.query(minhash):
            index.insert(i, minhash)
            keep.append(i)
    kept = data[keep]
    kept.write_ndjson(out / "kept.jsonl")
    seconds = time.perf_counter() - start
    (out / "kept.txt").write_text("\n".join(kept["id"]))
    print(seconds)


if __name__ == "__main__":
    main()

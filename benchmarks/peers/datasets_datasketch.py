"""Peer: a `datasets` + `datasketch` script, two workers for the signatures. Usage: ROWS OUT; prints seconds.

Normalise, drop exact copies, MinHash of word pairs, keep a row when no kept row lies in one of its buckets.
"""

import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
from datasets import disable_progress_bars, load_dataset
from datasketch import LeanMinHash, MinHash, MinHashLSH

BANDS, PER_BAND = 25, 4


def prepare(row):
    return {"text": unicodedata.normalize("NFC", " ".join(row["text"].split()))}


def sign(batch):
    rows = []
    for text in batch["text"]:
        words = text.lower().split()
        minhash = MinHash(num_perm=BANDS * PER_BAND, seed=1)
        minhash.update_batch([f"{a} {b}".encode() for a, b in zip(words, words[1:], strict=False)])
        rows.append(minhash.hashvalues.astype(np.int64))
    return {"signature": rows}


def main() -> None:
    rows, out = Path(sys.argv[1]), Path(sys.argv[2])
    disable_progress_bars()
    start = time.perf_counter()
    data = load_dataset("json", data_files=str(rows), split="train", cache_dir=str(out / "cache"))
    data = data.map(prepare, num_proc=2)
    seen = set()
    data = data.select([i for i, text in enumerate(data["text"]) if not (text in seen or seen.add(text))])
    signed = data.map(sign, batched=True, num_proc=2)
    index = MinHashLSH(num_perm=BANDS * PER_BAND, params=(BANDS, PER_BAND))
    keep = []
    for i, values in enumerate(signed.with_format("numpy")["signature"]):
        minhash = LeanMinHash(seed=1, hashvalues=np.asarray(values, np.uint32), scheme="affine32")
        if not index.query(minhash):
            index.insert(i, minhash, check_duplication=False)
            keep.append(i)
    kept = data.select(keep)
    kept.to_json(str(out / "kept.jsonl"))
    seconds = time.perf_counter() - start
    (out / "kept.txt").write_text("\n".join(kept["id"]))
    print(seconds)


if __name__ == "__main__":
    main()

"""`make bench-synthesis`: do distinct real rows survive synthesis, and do their copies go?

A stand-in teacher, real HTTP on this machine, replays the rows of LlamaDuo's classification data (DATA): each row, then
its exact copy, then an edited one. Asked twice: for the rows as they are, and under the instruction of the file's first
row, as in a templated task. Writes `results/synthesis.json` and the table `synthesis`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.project import ROOT, machine, save
from understudy.config import DedupeConfig, ServiceConfig, SynthesizeConfig
from understudy.core.records import Document, Example, Ledger, read_examples
from understudy.data.duplicates.near import text_of
from understudy.data.shingles import ngrams, words
from understudy.data.synthesis.material import Material
from understudy.data.synthesis.quota import quota
from understudy.data.synthesis.synthesize import synthesize
from understudy.models.service import ServiceModel
from understudy.models.simulated.behaviour import labelled

FILE = "llamaduo-synth-classification-gpt4o.jsonl"
SEEDS = 40
KINDS = ("row", "copy", "edited")
"""What the teacher replies when it is shown a document for the first, the second and the third time."""
EDITS = {"the": "this", "and": "as well as", "is": "remains", "of": "from", "to": "towards", "a": "one"}
PLAIN = 0.6
"""Limit of the plain comparison, that of `dedupe`."""
Pair = tuple[str, str]


def pairs(data: Path, under_instruction: bool) -> list[Pair]:
    """(prompt, answer) of each row; with the instruction of the first row, less its example, before it in one line."""
    rows = [json.loads(line) for line in (data / FILE).read_text("utf-8").splitlines()]
    before, _, after = rows[0]["seed_prompt"].partition("Example pair")
    head = " ".join(f"{before} {after[after.index('Your task') :]}".split())
    turns = [tuple(m["content"].strip() for m in row["messages"]) for row in rows]
    return [(f"{head} {prompt}" if under_instruction else prompt, answer) for prompt, answer in turns]


def edited(text: str, draw: random.Random) -> str:
    """A near copy: one word in 25, but at least one, is replaced by another little word."""
    places = [m for m in re.finditer(r"\w+", text) if m[0].lower() in EDITS]
    count = min(len(places), max(1, len(text.split()) // 25))
    for m in sorted(draw.sample(places, count), key=lambda m: -m.start()):
        text = text[: m.start()] + EDITS[m[0].lower()] + text[m.end() :]
    return text


@contextmanager
def serving(reply: Callable[[dict[str, Any]], str]) -> Iterator[str]:
    """A chat-completions endpoint that answers with `reply(request)`; yields its base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = {"role": "assistant", "content": reply(request)}
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            body = json.dumps({
                "id": "r", "object": "chat.completion", "created": 0, "model": "replay", "usage": usage,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }).encode()  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()


def replay(rows: Sequence[Pair]) -> Callable[[dict[str, Any]], str]:
    """A teacher that knows of each document the row that it was made from."""
    by_document = {document(i, pair).text: (i, pair) for i, pair in enumerate(rows)}

    def reply(request: dict[str, Any]) -> str:
        blocks = labelled(request["messages"][-1]["content"])
        i, (prompt, answer) = by_document[blocks["DOCUMENT (JSON):"]["text"]]
        if KINDS[blocks["VARIANT (JSON):"] % 3] == "edited":
            draw = random.Random(i)
            prompt, answer = edited(prompt, draw), edited(answer, draw)
        return json.dumps({"examples": [{"question": prompt, "answer": answer, "facts": [], "category": ""}]})

    return reply


def document(i: int, pair: Pair) -> Document:
    return Document(f"row-{i}", f"{pair[0]}\n\n{pair[1]}")


def example(i: int, pair: Pair) -> Example:
    turns = [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return Example(f"seed-{i}", turns)


def synthesized(rows: Sequence[Pair], near: DedupeConfig | None, out: Path) -> tuple[list[Example], Ledger]:
    """What a round keeps when the teacher replays all rows but the seeds, each three times."""
    seeds, told = rows[:SEEDS], rows[SEEDS:]
    cfg = SynthesizeConfig(rows=3 * len(told), rows_per_call=1, min_yield=0.0)
    material = Material(list(map(example, *zip(*enumerate(seeds), strict=True))),
                        [document(i, pair) for i, pair in enumerate(told)], near=near)  # fmt: skip
    wanted = quota(cfg, material.seeds, material.documents)
    with serving(replay(told)) as url, closing(ServiceModel(ServiceConfig(provider="openai", model="replay"),
                                                            base_url=url, cache=None)) as teacher:  # fmt: skip
        ledger = synthesize(cfg, teacher, material, quota=wanted, round=1, out=out)
    return read_examples(out / "train.jsonl"), ledger


def plain(kept: Sequence[Example], seeds: Sequence[Example]) -> list[Example]:
    """The usual way: the whole text's word pairs, the first of those that share at least PLAIN of them stays."""
    every = [*seeds, *kept]
    grams = ngrams(words([text_of(e) for e in every]), 2)
    sets = [frozenset(grams[i].tolist()) for i in range(len(every))]
    stay: list[int] = []
    for i, own in enumerate(sets):
        if not any(len(own & sets[k]) >= PLAIN * len(own | sets[k]) for k in stay):
            stay.append(i)
    return [every[i] for i in stay if i >= len(seeds)]


def kinds(kept: Sequence[Example], rows: Sequence[Pair]) -> dict[str, int]:
    """How many rows of each kind there are; the second of two equal rows is the copy."""
    originals, seen = set(rows), set[Pair]()
    counts = dict.fromkeys(KINDS, 0)
    for e in kept:
        pair = (e.prompt[-1]["content"], str(e.answer))
        counts["edited" if pair not in originals else "copy" if pair in seen else "row"] += 1
        seen.add(pair)
    return counts


def measure(data: Path, under_instruction: bool) -> dict[str, Any]:
    rows = pairs(data, under_instruction)
    told = rows[SEEDS:]
    with tempfile.TemporaryDirectory() as folder:
        exact, _ = synthesized(rows, None, Path(folder) / "exact")
        near, ledger = synthesized(rows, DedupeConfig(), Path(folder) / "near")
    without = plain(exact, [example(i, pair) for i, pair in enumerate(rows[:SEEDS])])
    copies = len(told) - len(set(told))
    return {
        "rows": len(told),
        "equal_rows": copies,
        "kept": {
            "equal prompts only": kinds(exact, told),
            "without template stripping": kinds(without, told),
            "with template stripping": kinds(near, told),
        },
        "rejected": ledger.rejected,
        "balanced": ledger.balanced,
    }


def render(results: dict[str, dict[str, Any]]) -> str:
    header = [
        "rows replayed",
        "near duplicates told by",
        "distinct rows kept",
        "exact copies kept",
        "edited copies kept",
    ]
    lines = []
    for name, found in results.items():
        for method, counts in found["kept"].items():
            shares = [f"{counts[kind]} of {found['rows']}" for kind in KINDS]
            lines.append([name, method, *shares])
    return tables.table(header, lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Replay real rows through synthesis.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with the data sets")
    data: Path = parser.parse_args().data
    if not (data / FILE).is_file():
        print(f"error: {data} lacks {FILE}; name its folder: make bench-synthesis DATA=...", file=sys.stderr)
        return 2
    results = {
        "as they are": measure(data, False),
        "under their common instruction": measure(data, True),
    }
    content = render(results)
    print(content)
    written = save("synthesis", {"machine": machine(), "file": FILE, "seeds": SEEDS, "cases": results})
    print(f"\nwritten: {written.name}, table in {', '.join(tables.update('synthesis', content)) or 'no page'}")
    ours = [found["kept"]["with template stripping"] for found in results.values()]
    return 0 if all(c["copy"] == 0 for c in ours) and all(r["balanced"] for r in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""`make bench-engines`: tokens per second of the engines on one machine, in one run.

The tiny base and a random Qwen2 of about 0.1 B weights answer the same prompts: with transformers one at a time and in
padded batches, with OpenVINO one at a time and together. On the tiny base that is overhead, not arithmetic. Writes
`results/engines.json` and the table `engines`; exit status 1 where a target is missed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import tables
from benchmarks.project import machine, save
from understudy.models.base import Conversation, Sampling
from understudy.models.engine import Engine
from understudy.models.local import LocalModel
from understudy.models.openvino import OpenVinoModel
from understudy.models.tiny import BASE_DIR
from understudy.train.export import gguf

PROMPTS = 32
SHORT, LONG, LARGE = "tiny, as answers end", "tiny, 64 tokens", "0.1B, 32 tokens"
TOKENS = {SHORT: 64, LONG: 64, LARGE: 32}
REPEATS = {SHORT: 7, LONG: 5, LARGE: 3}
LARGER = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 14, "num_attention_heads": 12,
          "num_key_value_heads": 4}  # fmt: skip
"""About 0.1 B weights with the tiny base's vocabulary: what a small model computes, whatever it says."""
TARGETS = {"together / one by one": 10.0, "together / padded": 2.5, "one / one": 2.0}
"""On the tiny base at 64 tokens: OpenVINO's 32 prompts beside transformers', and one beside one."""


def chats() -> list[Conversation]:
    passage = "Mira Kell teaches Urban Botany. Urban Botany meets on Friday at 9:15 in room C{0} and gives {0} credits."
    text = f"{passage}\n\nQuestion: Where does Urban Botany take place?"
    return [[{"role": "user", "content": text.format(i)}] for i in range(PROMPTS)]


def larger(folder: Path) -> Path:
    """A random model of about 0.1 B weights in the tiny base's clothes."""
    import json
    import shutil

    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    shutil.copytree(BASE_DIR, folder)
    held = json.loads((BASE_DIR / "config.json").read_text("utf-8"))
    torch.manual_seed(0)
    keys = ("vocab_size", "max_position_embeddings", "eos_token_id", "pad_token_id")
    config = Qwen2Config(**{key: held[key] for key in keys}, **LARGER, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def rate(work: Callable[[], int], repeats: int) -> float:
    """Median tokens per second, after one run that warms up."""
    work()
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        tokens = work()
        found.append(tokens / (time.perf_counter() - begin))
    return statistics.median(found)


def measure(name: str, folder: Path, scratch: Path) -> dict[str, Any]:
    asked, sampling = chats(), Sampling(max_new_tokens=TOKENS[name])
    some = asked[:4] if name == LARGE else asked
    padded = LocalModel(folder, batch_size=PROMPTS)
    engine = OpenVinoModel(folder, gguf(folder, scratch / "model.gguf"))
    if name != SHORT:  # end tokens are tokens like others, so that answers are equally long
        padded.ends = engine.ends = frozenset()

    def together(model: Engine) -> Callable[[], int]:
        return lambda: sum(a.completion_tokens for a in model.generate(asked, sampling))

    def one_by_one(model: Engine, given: Sequence[Conversation]) -> Callable[[], int]:
        return lambda: sum(model.generate([c], sampling)[0].completion_tokens for c in given)

    repeats = REPEATS[name]
    equal = sum(a == b for a, b in zip(padded.generate(asked, sampling), engine.generate(asked, sampling), strict=True))
    return {
        "weights": sum(p.numel() for p in padded._model.parameters()),
        "transformers, one by one": rate(one_by_one(padded, some), repeats),
        "transformers, padded": rate(together(padded), repeats),
        "openvino, one by one": rate(one_by_one(engine, some), repeats),
        "openvino, together": rate(together(engine), repeats),
        "equal answers": equal,
    }


def ratios(found: dict[str, Any]) -> dict[str, float]:
    return {
        "together / one by one": found["openvino, together"] / found["transformers, one by one"],
        "together / padded": found["openvino, together"] / found["transformers, padded"],
        "one / one": found["openvino, one by one"] / found["transformers, one by one"],
    }


def main() -> int:
    with TemporaryDirectory() as held:
        scratch = Path(held)
        results = {name: measure(name, BASE_DIR, scratch) for name in (SHORT, LONG)}
        results[LARGE] = measure(LARGE, larger(scratch / "larger"), scratch)
    found = {name: {**of, "ratios": ratios(of)} for name, of in results.items()}
    save("engines", {"machine": machine(), "prompts": PROMPTS, "targets": TARGETS, "models": found})
    columns = [key for key in results[SHORT] if "," in key]
    rows = [
        [
            name,
            f"{of['weights'] / 1e6:.1f} M",
            *(f"{of[c]:,.0f}" for c in columns),
            f"{of['equal answers']} of {PROMPTS}",
        ]
        for name, of in results.items()
    ]
    text = tables.table(["model, answers", "weights", *columns, "equal answers"], rows)
    tables.update("engines", text)
    print(text)
    short = [what for what, least in TARGETS.items() if found[LONG]["ratios"][what] < least]
    for what in short:
        print(f"missed: {what} is {found[LONG]['ratios'][what]:.1f}, not {TARGETS[what]}", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())

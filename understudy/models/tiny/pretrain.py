"""Pretrains the tiny base: `python -m understudy.models.tiny.pretrain --minutes 40 --out DIR`.

Each worker trains on rows that a process of its own writes (`text.py`), with the loss on assistant tokens only. The
text rises from copying to answering, the learning rate is constant, then falls along a cosine of the time used. The
model is exported every few minutes; at the end it is measured from its exported files and its card is written.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import multiprocessing
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from understudy.models.tiny import batches, card, measure, muon, tokenizer
from understudy.models.tiny.languages import LANGUAGES


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes the base, apart from the time given."""

    language: str = "en"
    seed: int = 0
    vocab_size: int = 1024
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 256
    initializer_range: float = 0.06
    rope_theta: float = 10_000_000.0
    copy_layer: int = 2
    """Layer whose heads start as copying heads; see `copy_circuit` for these six."""
    name_mark: float = 0.5
    name_pull: float = 3.5
    recency: float = 4.1
    subject_write: float = 0.6
    subject_match: float = 0.5
    learning_rate: float = 2e-3
    constant_until: float = 0.3
    final_share: float = 0.02
    average_decay: float = 0.998
    warmup_steps: int = 150
    weight_decay: float = 0.05
    first_batch_tokens: int = 5120
    last_batch_tokens: int = 12_288
    level_from: float = 0.02
    level_until: float = 0.2
    tokenizer_rows: int = 12_000
    workers: int = 2
    export_every_s: float = 240.0
    measured_rows_per_kind: int = 200
    steps: int = 0
    """Optimizer steps that end the run instead of the time, for a machine that others use too: on one, the time passed
    and the learning rate fell for 11 minutes in which 21 steps were made."""
    start_at: float = 0.0
    """Share of the schedule that is left out; above 0, training goes on with the base that lies in the folder."""


def build_model(recipe: Recipe, tokens: Any, out: Path) -> Any:
    """A Qwen2 with tied embeddings: a rough copying circuit, or the base in `out` if the recipe goes on with it."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(recipe.seed)  # all workers start from the same weights
    config = Qwen2Config(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=tokenizer.POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
        tie_word_embeddings=True,
        initializer_range=recipe.initializer_range,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = Qwen2ForCausalLM(config)
    copy_circuit(model, recipe, tokenizer.name_pieces(tokens))
    if recipe.start_at:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(out / "model.safetensors"), strict=False)  # the tied output is not stored
    return model


def copy_circuit(model: Any, recipe: Recipe, pieces: list[int], sharpness: float = 6.0, match: float = 2.5) -> None:
    """Starts the model as a rough circuit that copies from the sentence about the right thing; training goes on there.

    Layer 0: heads 0 and 1 attend one and two tokens back. RoPE turns a pair of dimensions at frequency f by f per
    position, so a key bias turned by d * f meets the query bias best d tokens later. Head 2 attends to `pieces` (ids of
    tokens inside names, which carry a common mark) of the last twenty or so tokens: the subject. Layer `copy_layer`:
    heads look for places where the previous token and the subject are the current ones, and copy what stands there;
    they match on the slow dimensions, which RoPE hardly turns.

    Measured: from plain noise nothing was copied for a million tokens. With look-back heads alone copying was learnt in
    3 million, but of two things in a scene the model took the wrong one's value half of the time, still after 20
    million; with the subject head, one time in six after 6 million. Cf. mimetic initialisation (Trockman, Kolter 2023).
    """
    import torch

    first, second = (model.model.layers[at].self_attn for at in (0, recipe.copy_layer))
    size, hidden = first.head_dim, recipe.hidden_size
    frequencies = recipe.rope_theta ** (-torch.arange(0, size, 2).float() / size)  # (head_dim / 2,) float32
    slow = torch.nonzero(frequencies < 0.004).flatten()
    slow = torch.cat((slow, slow + size // 2))  # dimensions of a head that keep their direction over a context

    def basis() -> Any:
        return torch.linalg.qr(torch.randn(hidden, hidden)).Q  # (hidden, hidden) float32

    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight *= 0.1  # else their noise is five times the embedding and drowns the match
            layer.self_attn.o_proj.weight *= 0.2
        views, copies = basis(), basis()
        view = views[:size]  # what is known of a token; each head writes it into rows of its own
        mark = views[3 * size]  # tokens inside names; a fast dimension of head 2, so nothing matches on it
        embedding = model.model.embed_tokens.weight
        embedding[pieces] += recipe.name_mark * embedding[pieces].norm(dim=1).mean() * mark
        for head in range(3):
            rows = slice(head * size, (head + 1) * size)
            for part in (first.q_proj, first.k_proj):
                part.weight[rows] *= 0.1
            if head < 2:
                near, angle = torch.ones(size // 2) * sharpness, (head + 1) * frequencies
            else:
                near, angle = ((frequencies < 0.1) & (frequencies > 0.005)) * recipe.recency, 0.0 * frequencies
            first.q_proj.bias[rows] = torch.cat((near, torch.zeros(size // 2)))
            first.k_proj.bias[rows] = torch.cat((near * angle.cos(), near * angle.sin()))
            first.v_proj.weight[rows] = view
            written = recipe.subject_write if head == 2 else 0.1
            first.o_proj.weight[:, rows] = written * views[(head + 1) * size : (head + 2) * size].T
        slowest = 2 * size + size // 2 - 1
        first.q_proj.bias[slowest] = recipe.name_pull
        first.k_proj.weight[slowest] = recipe.name_pull * mark / 2
        for head in range(recipe.heads - 1):
            rows = slice(head * size, (head + 1) * size)
            second.q_proj.weight[rows] *= 0.1
            second.k_proj.weight[rows] *= 0.1
            # Match this token with the one before the place, and (halved) the one before with two before it.
            here, one_back, two_back, subject = (views[at * size + slow] for at in range(4))
            subject = recipe.subject_match * subject
            second.q_proj.weight[head * size + slow] = match * (here + 0.5 * one_back + subject)
            second.k_proj.weight[head * size + slow] = match * (one_back + 0.5 * two_back + subject)
            second.v_proj.weight[rows] = copies[rows]
            second.o_proj.weight[:, rows] = 0.4 * copies[rows].T


def batch_loss(model: Any, token_ids: Any, loss_mask: Any) -> tuple[Any, float, int]:
    """Summed loss, hits and count of supervised tokens; logits are computed at those positions only.

    token_ids: (batch, seq) int64, loss_mask: (batch, seq) bool.
    """
    import torch

    states = model.model(input_ids=token_ids, use_cache=False).last_hidden_state  # (batch, seq, hidden) float32
    wanted = loss_mask[:, 1:]
    logits = model.lm_head(states[:, :-1][wanted])  # (supervised, vocab) float32
    targets = token_ids[:, 1:][wanted]  # (supervised,) int64
    hits = (logits.argmax(-1) == targets).sum().item()
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum"), float(hits), targets.numel()


def export(model: Any, tokens: Any, directory: Path) -> None:
    """Writes float16 safetensors (three bits finer than bfloat16, and all weights fit), configs and tokenizer."""
    import torch
    from transformers import GenerationConfig

    half = copy.deepcopy(model).to("cpu", torch.float16)
    half.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0, do_sample=False)
    half.save_pretrained(directory)
    (directory / "model.safetensors").chmod(0o644)  # safetensors writes 0600
    tokenizer.save(tokens, directory)


def schedule(recipe: Recipe, step: int, progress: float) -> tuple[float, float, float]:
    """Learning rate, level of the text and tokens per batch at a share of the time."""
    falling = min(max((progress - recipe.constant_until) / (1 - recipe.constant_until), 0.0), 1.0)
    cosine = 0.5 * (1 + math.cos(math.pi * falling))
    rate = recipe.learning_rate * (recipe.final_share + (1 - recipe.final_share) * cosine)
    span = recipe.level_until - recipe.level_from
    level = min(max((progress - recipe.level_from) / span, 0.0), 1.0)
    growth = min(max((progress - 0.3) / 0.4, 0.0), 1.0)
    budget = recipe.first_batch_tokens + growth * (recipe.last_batch_tokens - recipe.first_batch_tokens)
    return rate * min(1.0, (step + 1) / recipe.warmup_steps), level, budget


class Exchange:
    """Sums gradients between worker processes through shared memory.

    One single-threaded process per core: threads of one process would meet at every operation, these once a step.
    """

    def __init__(self, context: Any, workers: int, size: int) -> None:
        import torch

        # Two buffers in turn: a worker may fill the next step's while another still reads this one's.
        self.shared: Any = torch.zeros(2, workers, size)  # (turn, worker, size) float32
        self.shared.share_memory_()  # type: ignore[no-untyped-call]
        self.barrier = context.Barrier(workers)

    def total(self, turn: int, worker: int, mine: Any) -> Any:
        """The sum of all workers' vectors; (size,) float32."""
        self.shared[turn % 2, worker] = mine
        self.barrier.wait(timeout=600)
        return self.shared[turn % 2].sum(0)


def train(recipe: Recipe, minutes: float, out: Path, exchange: Any, worker: int) -> dict[str, Any]:
    """The training loop of one worker; all workers hold equal weights, worker 0 prints and exports."""
    import torch
    from tokenizers import Tokenizer

    on_gpu = torch.cuda.is_available()
    torch.set_num_threads(1)
    device = "cuda" if on_gpu else "cpu"
    tokens = Tokenizer.from_file(str(out / "tokenizer.json"))
    model = build_model(recipe, tokens, out).to(device).train()
    weights = list(model.parameters())
    sizes = [weight.numel() for weight in weights]
    optimizer = muon.Muon(model, recipe.weight_decay)
    average = copy.deepcopy(model)  # running mean of the weights: what is exported
    means = list(average.parameters())
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(maxsize=48)
    level, budget = context.Value("d", 0.0), context.Value("d", float(recipe.first_batch_tokens))
    text_seed = recipe.seed + 1 + 1000 * worker + round(100_000 * recipe.start_at)  # no row a second time
    files = (str(out / "tokenizer.json"), recipe.language, text_seed)
    writer = context.Process(target=batches.produce, args=(*files, queue, level, budget), daemon=True)
    writer.start()
    start = exported = shown = time.monotonic()
    sums = {"tokens": 0.0, "supervised": 0.0, "rows": 0.0}
    recent: list[tuple[float, float]] = []
    curve: list[dict[str, float]] = []
    step, progress = 0, 0.0
    try:
        while progress < 1.0:
            rate, level.value, tokens_per_step = schedule(
                recipe, step, recipe.start_at + (1 - recipe.start_at) * progress
            )
            budget.value = tokens_per_step / recipe.workers
            batch = queue.get(timeout=600)
            token_ids = torch.from_numpy(batch.token_ids).to(device).long()  # (batch, seq) int64
            loss, hits, count = batch_loss(model, token_ids, torch.from_numpy(batch.loss_mask).to(device))
            loss.backward()
            used = (step + 1) / recipe.steps if recipe.steps else (time.monotonic() - start) / (minutes * 60)
            extra = torch.tensor([used, loss.item(), hits, count, batch.tokens, len(batch.token_ids)])  # (6,) float32
            mine = torch.cat([weight.grad.flatten().cpu() for weight in weights] + [extra])
            total = exchange.total(step, worker, mine)
            progress, loss_sum, hits, count, seen, rows = total[-6:].tolist()
            progress /= recipe.workers  # every worker must leave the loop at the same step
            for weight, gradient in zip(weights, total[:-6].split(sizes), strict=True):
                weight.grad.copy_((gradient / count).view_as(weight))
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step(rate)
            step += 1
            with torch.no_grad():
                torch._foreach_lerp_(means, weights, max(1 - recipe.average_decay, 1 / step))
            recent.append((loss_sum / count, hits / count))
            sums = {
                "tokens": sums["tokens"] + seen,
                "supervised": sums["supervised"] + count,
                "rows": sums["rows"] + rows,
            }
            now = time.monotonic()
            if worker == 0 and now - shown > 15:
                shown = now
                logged = [round(sum(column) / len(recent), 4) for column in zip(*recent, strict=True)]
                point = {
                    "minutes": round((now - start) / 60, 2),
                    "tokens": int(sums["tokens"]),
                    "level": round(level.value, 2),
                }
                curve.append(point | {"loss": logged[0], "token_accuracy": logged[1]})
                print(
                    f"{curve[-1]} step {step} lr {rate:.1e} {sums['tokens'] / (now - start):.0f} tokens/s", flush=True
                )
                recent = []
            if worker == 0 and now - exported > recipe.export_every_s:
                exported = now
                export(average, tokens, out)
    finally:
        writer.terminate()
    if worker == 0:
        export(average, tokens, out)
    spent = time.monotonic() - start
    return {
        "parameters": model.num_parameters(),
        "minutes": round(spent / 60, 2),
        "optimizer_steps": step,
        "rows": int(sums["rows"]),
        "tokens": int(sums["tokens"]),
        "supervised_tokens": int(sums["supervised"]),
        "tokens_per_s": round(sums["tokens"] / spent),
        "device": device,
        "curve": curve,
    }


def train_all(recipe: Recipe, tokens: Any, minutes: float, out: Path) -> dict[str, Any]:
    """Runs the workers, worker 0 in this process; returns its figures."""
    context = multiprocessing.get_context("spawn")
    size = sum(weight.numel() for weight in build_model(recipe, tokens, out).parameters()) + 6
    exchange = Exchange(context, recipe.workers, size)
    others = [
        context.Process(target=train, args=(recipe, minutes, out, exchange, worker))
        for worker in range(1, recipe.workers)
    ]
    for process in others:
        process.start()
    try:
        return train(recipe, minutes, out, exchange, 0)
    except BaseException:
        exchange.barrier.abort()  # nobody must wait for the dead
        raise
    finally:
        for process in others:
            process.join(timeout=60)


def run(recipe: Recipe, minutes: float, out: Path) -> dict[str, Any]:
    """Tokenizer, training, export, measurement, card; returns the figures of `training.json`."""
    import torch
    import transformers

    out.mkdir(parents=True, exist_ok=True)
    language = LANGUAGES[recipe.language]
    if recipe.start_at:
        tokens = tokenizer.load(out)
        earlier = json.loads((out / "training.json").read_text())
    else:
        words = language.tokenizer_text(recipe.seed + 2, recipe.tokenizer_rows)
        tokens = tokenizer.train(words, recipe.vocab_size, language.letters_first)
        tokenizer.save(tokens, out)
        earlier = {}
    figures = added(earlier, train_all(recipe, tokens, minutes, out))
    figures |= {"recipe": asdict(recipe), "machine": card.machine(recipe.workers)}
    figures |= {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}}
    (out / "training.json").write_text(json.dumps(figures, indent=1) + "\n")
    return measured(out, recipe.measured_rows_per_kind)


def added(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Figures of a training that went on: sums, one curve, and the minutes of each part."""
    if not earlier:
        return later
    total = {key: later[key] + earlier[key] for key in ("optimizer_steps", "rows", "tokens", "supervised_tokens")}
    minutes = round(later["minutes"] + earlier["minutes"], 2)
    went_on = [
        point
        | {"minutes": round(point["minutes"] + earlier["minutes"], 2), "tokens": point["tokens"] + earlier["tokens"]}
        for point in later["curve"]
    ]
    parts = [*earlier.get("parts", [earlier["minutes"]]), later["minutes"]]
    speed = {"tokens_per_s": round(total["tokens"] / (60 * minutes))}
    return later | total | speed | {"minutes": minutes, "curve": earlier["curve"] + went_on, "parts": parts}


def measured(out: Path, rows_per_kind: int) -> dict[str, Any]:
    """Measures an exported base from its files and writes its card; returns the figures of `training.json`."""
    print("exported; measuring from the files", flush=True)
    figures: dict[str, Any] = json.loads((out / "training.json").read_text())
    language = LANGUAGES[figures["recipe"].get("language", "en")]
    figures["recipe"]["measured_rows_per_kind"] = rows_per_kind
    figures |= measure.measure(out, language, count=rows_per_kind)
    (out / "training.json").write_text(json.dumps(figures, indent=1) + "\n")
    (out / "README.md").write_text(card.write(figures))
    return figures


def main() -> None:
    """Command line; every field of `Recipe` is an option, and `--minutes 0` only measures what was exported."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--language", choices=sorted(LANGUAGES), default="en")
    language = LANGUAGES[first.parse_known_args()[0].language]
    parser = argparse.ArgumentParser(description="Pretrain the tiny base model.", parents=[first])
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--out", type=Path, required=True)
    for name, value in asdict(Recipe(language=language.code, vocab_size=language.vocab_size)).items():
        if name != "language":
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = vars(parser.parse_args())
    minutes, out = options.pop("minutes"), options.pop("out")
    recipe = Recipe(**options)
    figures = run(recipe, minutes, out) if minutes else measured(out, recipe.measured_rows_per_kind)
    print(card.write(figures))


if __name__ == "__main__":
    main()

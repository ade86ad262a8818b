"""Supervised fine-tuning on packed rows: the one training loop.

Logits are computed only where a token is supervised; the loss of a step is the mean over its supervised tokens. All
randomness but dropout is spent before the first step, and checkpoints hold dropout's generator, so that a resumed run
equals an undisturbed one bit by bit on a CPU. As in torch itself, bytes depend on the CPU and on its thread count.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.config import TrainConfig
from understudy.core.records import digest, sha256_file
from understudy.data import pack
from understudy.errors import ConfigError, DataError
from understudy.train import adapters, checkpoint

MICRO_TOKENS = 4096
"""Positions per forward pass: bounds memory, and is fixed so that it never changes a result."""

NARROW = 256
"""Width of the rows that chats are packed into for a pass, where no chat of the step is longer."""

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "generation_config.json",
)  # fmt: skip

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Rows of every optimizer step and its learning rate, drawn before training; `per_epoch` steps make an epoch."""

    steps: list[list[int]]
    rates: list[float]
    per_epoch: int


def schedule(cfg: TrainConfig, rows: int) -> Schedule:
    """Each epoch is its own permutation of the rows; rates rise over `warmup`, then fall as a cosine to a tenth."""
    import numpy as np

    per_epoch = math.ceil(rows / cfg.rows_per_step)
    total = round(cfg.epochs * per_epoch) if cfg.max_steps is None else cfg.max_steps
    steps: list[list[int]] = []
    while len(steps) < total:
        order = np.random.default_rng([cfg.seed, len(steps) // per_epoch]).permutation(rows).tolist()
        steps += [order[i : i + cfg.rows_per_step] for i in range(0, rows, cfg.rows_per_step)]
    warm = round(cfg.warmup * total)
    rates = []
    for step in range(total):
        if step < warm:
            factor = (step + 1) / warm
        else:
            factor = 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
        rates.append(cfg.learning_rate * factor)
    return Schedule(steps[:total], rates, per_epoch)


def train(
    cfg: TrainConfig,
    packed: Path,
    base: Path,
    out: Path,
    *,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Fine-tune the model in `base` on `packed`; writes model/, adapter/ (LoRA), loss.jsonl, train.json to `out`.

    With `scratch`, a checkpoint is kept there every `save_every_steps` and a run killed before resumes from it.
    `progress(step, steps, numbers)` is called after each step. Returns the final numbers.
    Raises DataError NO_LABELS, NO_TRAINABLE, TRAIN_NONFINITE, ConfigError MODEL_HEAD.
    """
    import torch

    rows, validation = pack.load(packed, "train"), pack.load(packed, "validation")
    if rows is None:
        raise DataError("DATA_EMPTY", packed.name, "holds no rows to train on", "run pack again")
    plan = schedule(cfg, len(rows))
    if plan.steps and not int((rows.loss_mask[:, 1:] > 0).sum()):
        raise DataError("NO_LABELS", packed.name, "no token is supervised", "check that the rows have answers")
    run = _run_digest(cfg, packed, base) if scratch else ""
    with _deterministic():
        torch.manual_seed(cfg.seed)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        causal = load_model(base).to(device)
        check_head(causal)
        parameters = causal.num_parameters()
        model, learning = adapters.trainable(causal, cfg)
        optimizer = _optimizer(learning, cfg)
        log: list[dict[str, float]] = []
        done = 0
        if scratch and (saved := checkpoint.newest(scratch, run)):
            _restore(saved, learning, optimizer)
            done, log = saved.step, saved.state["log"]
        tokens = int(sum(entry.get("tokens", 0) for entry in log))
        for step in range(done, len(plan.steps)):
            model.train()
            for group in optimizer.param_groups:
                group["lr"] = plan.rates[step]
            loss, count = _accumulate(causal, rows, plan.steps[step], device)
            norm = float(torch.nn.utils.clip_grad_norm_(list(learning.values()), cfg.clip_norm))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                what = f"loss {loss}, gradient norm {norm} at learning rate {plan.rates[step]:.3g}"
                raise DataError("TRAIN_NONFINITE", f"step {step + 1}", what, "lower train.learning_rate")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tokens += count
            log.append({"step": step + 1, "loss": loss, "lr": plan.rates[step], "tokens": count})
            ended = (step + 1) % plan.per_epoch == 0 or step + 1 == len(plan.steps)
            if ended and validation is not None:
                log.append({"step": step + 1, "validation_loss": evaluate(causal, validation, device)})
            if scratch and (step + 1) % cfg.save_every_steps == 0 and step + 1 < len(plan.steps):
                checkpoint.save(scratch, step + 1, _tensors(learning, optimizer), {"run": run, "log": log})
            if progress:
                progress(step + 1, len(plan.steps), log[-1] | {"loss": loss})
        if not plan.steps and validation is not None:
            log.append({"step": 0, "validation_loss": evaluate(causal, validation, device)})
        numbers = _numbers(log, len(plan.steps), tokens, learning) | {"parameters": parameters}
        _write(model, cfg, base, out, log, numbers)
    return numbers


def load_model(path: Path) -> Any:
    """The causal language model of a folder, float32, with attention that cuts packed rows (sdpa)."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True)


def check_head(causal: Any) -> None:
    """Refuse models whose logits are more than head(hidden): the loss below would not be theirs."""
    import torch

    ids = torch.arange(8).remainder(causal.config.vocab_size).unsqueeze(0).to(causal.device)  # (1, 8) int64
    with torch.no_grad():
        want = causal(input_ids=ids, use_cache=False).logits
        got = causal.get_output_embeddings()(causal.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.allclose(want, got, atol=1e-4, rtol=1e-4):
        what = "the model changes its logits after the head (soft-capping or scaling)"
        raise ConfigError("MODEL_HEAD", type(causal).__name__, what, "use another base")


def token_losses(causal: Any, token_ids: Any, loss_mask: Any, position_ids: Any) -> Any:
    """Negative log-likelihood (nats) of every supervised token, flat: float32 (supervised,).

    Takes (batch, seq) int64 tensors. There is no attention mask and no cache: only then transformers cuts attention
    where positions restart (with an all-ones mask packed chats see each other: logits were off by 7.4).
    """
    import torch

    supervised = loss_mask[:, 1:] > 0  # (batch, seq - 1) bool: whether token t + 1 is learnt
    # Nothing after the last supervised token changes a loss; the last row of a packing is mostly padding.
    used = int(supervised.any(0).nonzero().max()) + 1 if bool(supervised.any()) else 1
    hidden = causal.get_decoder()(
        input_ids=token_ids[:, :used], position_ids=position_ids[:, :used], use_cache=False
    ).last_hidden_state  # (batch, used, hidden)
    chosen = supervised[:, :used]
    logits = causal.get_output_embeddings()(hidden[chosen]).float()  # (supervised, vocab)
    labels = token_ids[:, 1 : used + 1][chosen]
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def batches(rows: pack.Rows, indices: list[int], device: str) -> Iterator[tuple[Any, Any, Any]]:
    """The chats of these rows in micro-batches of at most MICRO_TOKENS positions: three (batch, width) int64 tensors.

    Chats are packed again into rows as narrow as the longest allows: attention over a row is dense, and rows of 256
    instead of 1,024 gave 1.7 times the tokens per CPU second (4 layers of 192, chats of 78 tokens).
    """
    import numpy as np
    import torch

    chats = []
    for ids, mask, positions in ((a[i] for a in (rows.token_ids, rows.loss_mask, rows.position_ids)) for i in indices):
        starts = np.flatnonzero(positions == 0).tolist()
        spans = zip(starts, [*starts[1:], len(ids)], strict=True)
        chats += [(ids[s:e], mask[s:e]) for s, e in spans if mask[s:e].any()]
    width = min(rows.token_ids.shape[1], max([NARROW, *(len(ids) for ids, _ in chats)]))
    arrays, _ = pack.fill(width, chats)
    size = max(1, MICRO_TOKENS // width)
    for start in range(0, len(arrays["token_ids"]), size):
        ids, mask, positions = (arrays[name][start : start + size].astype(np.int64) for name in pack.ARRAYS)
        yield tuple(torch.from_numpy(a).to(device) for a in (ids, mask, positions))  # type: ignore[misc]


@contextmanager
def _precision(device: str) -> Iterator[None]:
    """float32 on a CPU; on a GPU bfloat16 arithmetic over float32 weights."""
    import torch

    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=device == "cuda"):
        yield


def _accumulate(causal: Any, rows: pack.Rows, indices: list[int], device: str) -> tuple[float, int]:
    """Gradients of the mean loss over the step's supervised tokens; (mean loss, token count)."""
    count = int((rows.loss_mask[indices][:, 1:] > 0).sum())
    total = 0.0
    for ids, mask, positions in batches(rows, indices, device):
        with _precision(device):
            loss = token_losses(causal, ids, mask, positions).sum() / max(1, count)
        loss.backward()
        total += float(loss.detach())
    return total, count


def evaluate(causal: Any, rows: pack.Rows, device: str) -> float:
    """Mean loss (nats per supervised token) over all rows, without dropout and without a draw."""
    import torch

    causal.eval()
    total, count = 0.0, 0
    with torch.no_grad(), _precision(device):
        for batch in batches(rows, list(range(len(rows))), device):
            losses = token_losses(causal, *batch)
            total += float(losses.double().sum())
            count += losses.numel()
    return total / max(1, count)


def _optimizer(learning: dict[str, Any], cfg: TrainConfig) -> Any:
    """AdamW (Loshchilov & Hutter 2019); decay on matrices only."""
    import torch

    groups = [
        {"params": [p for p in learning.values() if p.ndim > 1], "weight_decay": cfg.weight_decay},
        {"params": [p for p in learning.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=cfg.learning_rate, betas=(0.9, 0.999), eps=1e-8)


def _tensors(learning: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Everything a resumed step needs, by name: weights, AdamW's moments and counts, torch's generators."""
    import torch

    tensors = {f"weight:{name}": p for name, p in learning.items()}
    for name, parameter in learning.items():
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer:{key}:{name}"] = value
    tensors["random:cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random:cuda"] = torch.cuda.get_rng_state()
    return tensors


def _restore(saved: checkpoint.Saved, learning: dict[str, Any], optimizer: Any) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in learning.items():
            parameter.copy_(saved.tensors[f"weight:{name}"])
            state = optimizer.state[parameter]
            for key in ("exp_avg", "exp_avg_sq"):
                state[key] = saved.tensors[f"optimizer:{key}:{name}"].to(parameter.device)
            state["step"] = saved.tensors[f"optimizer:step:{name}"]
    torch.set_rng_state(saved.tensors["random:cpu"])
    if "random:cuda" in saved.tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(saved.tensors["random:cuda"])


def _run_digest(cfg: TrainConfig, packed: Path, base: Path) -> str:
    """What a checkpoint belongs to; how often it is saved does not matter."""
    config = cfg.model_dump(exclude={"save_every_steps"})
    files = sorted(packed.glob("*.npy")) + sorted(base.glob("*.safetensors")) + [base / "config.json"]
    return digest([config, [[f.name, sha256_file(f)] for f in files]])


@contextmanager
def _deterministic() -> Iterator[None]:
    """Deterministic kernels while training; on a GPU a missing one warns instead of stopping the run.

    Filling fresh memory (8 % of a step's time) only hides reads of unset memory, which the kernels used here do not do.
    """
    import torch
    from torch.utils import deterministic

    memory: Any = deterministic

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill, memory.fill_uninitialized_memory = memory.fill_uninitialized_memory, False
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        memory.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(before, warn_only=warned)


def _numbers(log: list[dict[str, float]], steps: int, tokens: int, learning: dict[str, Any]) -> dict[str, float]:
    losses = [entry["loss"] for entry in log if "loss" in entry]
    validation = [entry["validation_loss"] for entry in log if "validation_loss" in entry]
    numbers: dict[str, float] = {
        "optimizer_steps": steps,
        "trained_tokens": tokens,
        "trainable_parameters": sum(p.numel() for p in learning.values()),
    }
    if losses:
        numbers |= {"first_loss": losses[0], "loss": losses[-1]}
    if validation:
        numbers["validation_loss"] = validation[-1]
    return numbers


def _write(
    model: Any, cfg: TrainConfig, base: Path, out: Path, log: list[dict[str, float]], numbers: dict[str, float]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if cfg.method == "lora":
        adapters.save_adapter(model, out / "adapter")
    save_model(adapters.merged(model), base, out / "model")
    lines = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in log)
    (out / "loss.jsonl").write_text(lines, encoding="utf-8")
    report = {"config": cfg.model_dump(mode="json")} | numbers
    (out / "train.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def save_model(model: Any, base: Path, out: Path) -> None:
    """Weights in float32, and the base's tokenizer, template and generation settings as they are."""
    import torch

    out.mkdir(parents=True, exist_ok=True)
    model.to(device="cpu", dtype=torch.float32).eval()
    model.save_pretrained(out)
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)

"""Training: the loss and gradient are the textbook ones, runs repeat and resume bit by bit, outputs reload."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_chat_pack import chat, examples, packed, tiny_model

from understudy.config import PackConfig, TrainConfig
from understudy.core.records import Example, sha256_file, write_jsonl
from understudy.data import pack
from understudy.data.chat import ChatTemplate
from understudy.errors import ConfigError, DataError
from understudy.train import adapters, sft

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("sft") / "tiny")


@pytest.fixture(scope="module")
def rows(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_jsonl(folder / "t.jsonl", examples(40))
    write_jsonl(folder / "v.jsonl", examples(5))
    cfg = PackConfig(seq_len_tokens=192)
    pack.pack(cfg, base, [folder / "t.jsonl"], folder / "v.jsonl", folder / "packed")
    return folder / "packed"


def sha(out: Path) -> dict[str, str]:
    """Digest of every file of a training's output."""
    return {str(f.relative_to(out)): sha256_file(f) for f in sorted(out.rglob("*")) if f.is_file()}


def reference(model: Any, base: Path, given: list[Example]) -> tuple[float, int]:
    """Summed loss and token count by transformers' own loss, one unpacked chat at a time."""
    template, total, count = ChatTemplate.load(base), 0.0, 0
    for example in given:
        ids, mask = (torch.tensor([x]) for x in template.encode(example.messages))
        loss = model(input_ids=ids, labels=torch.where(mask > 0, ids, -100)).loss
        total, count = total + loss * int(mask.sum()), count + int(mask.sum())
    return total, count


@pytest.mark.parametrize("as_packed", [True, False], ids=["as packed", "in micro-batches"])
def test_loss_and_gradient_equal_those_of_unpacked_chats(
    base: Path, rows: Path, as_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loaded = sft.load_model(base), pack.load(rows, "train")
    assert loaded is not None
    if as_packed:
        arrays = (loaded.token_ids, loaded.loss_mask, loaded.position_ids)
        losses = sft.token_losses(model, *(torch.from_numpy(np.array(a)).long() for a in arrays))
        losses.mean().backward()
        mean, tokens = losses.mean().item(), losses.numel()
    else:
        monkeypatch.setattr(sft, "MICRO_TOKENS", 400)
        assert len(list(sft.batches(loaded, list(range(len(loaded))), "cpu"))) > 2
        mean, tokens = sft._accumulate(model, loaded, list(range(len(loaded))), "cpu")
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    total, count = reference(model, base, examples(40))
    (total / count).backward()
    assert tokens == count
    assert abs(mean - (total / count).item()) < 1e-5
    for name, p in model.named_parameters():
        assert torch.allclose(gradients[name], p.grad, atol=1e-5), name


def test_each_chat_keeps_its_own_loss_when_packed(base: Path, tmp_path: Path) -> None:
    model, given = sft.load_model(base), examples(6)
    loaded = pack.load(packed(base, tmp_path, given, 512), "train")
    assert loaded is not None and len(loaded) == 1
    arrays = (loaded.token_ids, loaded.loss_mask, loaded.position_ids)
    losses = sft.token_losses(model, *(torch.from_numpy(np.array(a)).long() for a in arrays)).detach()
    segment = np.cumsum(loaded.position_ids[0] == 0)[np.flatnonzero(loaded.loss_mask[0])]
    together = sorted(float(losses[torch.from_numpy(segment == s)].sum()) for s in set(segment.tolist()))
    alone = sorted(float(torch.as_tensor(reference(model, base, [e])[0]).detach()) for e in given)
    assert together == pytest.approx(alone, abs=1e-5 * 20)


def test_one_step_is_adamw_on_the_mean_over_the_steps_tokens(base: Path, rows: Path, tmp_path: Path) -> None:
    """The whole of one step against transformers' loss and torch's AdamW written out."""
    cfg = TrainConfig(method="full", max_steps=1, rows_per_step=100, learning_rate=0.01, warmup=0.0, weight_decay=0.1)
    sft.train(cfg, rows, base, tmp_path)
    model = sft.load_model(base)
    total, count = reference(model, base, examples(40))
    (total / count).backward()
    norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in model.parameters()))
    after = dict(sft.load_model(tmp_path / "model").named_parameters())
    for name, p in model.named_parameters():
        g = p.grad / max(1.0, norm / cfg.clip_norm)
        decayed = p * (1 - 0.01 * (0.1 if p.ndim > 1 else 0.0))
        want = decayed - 0.01 * g / (g.abs() + 1e-8)
        sure = g.abs() > 1e-5  # the sign of a smaller gradient may turn with the order of sums
        assert torch.allclose(after[name][sure], want[sure], atol=2e-5), name


def test_schedule_visits_every_row_once_per_epoch_and_decays_to_a_tenth() -> None:
    plan = sft.schedule(TrainConfig(epochs=3.0, rows_per_step=4, learning_rate=1.0, warmup=0.1), 10)
    assert len(plan.steps) == 9 and plan.per_epoch == 3
    epochs = [sum(plan.steps[i : i + 3], []) for i in (0, 3, 6)]
    assert all(sorted(e) == list(range(10)) for e in epochs) and epochs[0] != epochs[1]
    assert plan.rates[0] == 1.0 and plan.rates == sorted(plan.rates, reverse=True)
    long = sft.schedule(TrainConfig(max_steps=1000, rows_per_step=4, learning_rate=1.0, warmup=0.1), 10).rates
    assert long[:100] == pytest.approx([(i + 1) / 100 for i in range(100)]) and long[-1] == pytest.approx(0.1, abs=1e-3)
    assert sft.schedule(TrainConfig(seed=1), 10).steps != sft.schedule(TrainConfig(), 10).steps


def test_a_small_set_is_learnt_by_heart_and_reproduced(base: Path, tmp_path: Path) -> None:
    from understudy.models.base import Sampling
    from understudy.models.local import LocalModel

    given = [chat(f"Where is {n}?", f"{n} is in room {i}{i + 3}.", n) for i, n in enumerate(["Anna", "Bob", "Chen"])]
    cfg = TrainConfig(method="full", max_steps=120, learning_rate=0.02, rows_per_step=1)
    numbers = sft.train(cfg, packed(base, tmp_path, given), base, tmp_path / "out")
    assert numbers["loss"] < 0.01
    model = LocalModel(tmp_path / "out/model")
    assert [a.text for a in model.generate([e.prompt for e in given], Sampling())] == [e.answer for e in given]
    assert [total / count < 0.05 for total, count in model.reference_losses(given)] == [True] * 3


LORA = {"lora_rank": 4, "lora_dropout": 0.1, "learning_rate": 0.01, "rows_per_step": 2}


@pytest.mark.parametrize("tied", [True, False])
def test_lora_trains_only_the_adapter_and_the_merged_model_reloads(rows: Path, tmp_path: Path, tied: bool) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tiny_model(tmp_path / "tiny", tied=tied, seed=3)
    numbers = sft.train(TrainConfig(**LORA, max_steps=4), rows, base, tmp_path / "out")
    assert numbers["trainable_parameters"] < numbers["parameters"] / 2
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out/model", dtype=torch.float32)
    start = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = torch.arange(20).unsqueeze(0)
    with torch.no_grad():
        got, before = model(input_ids=ids).logits, start(input_ids=ids).logits
        beside = PeftModel.from_pretrained(start, str(tmp_path / "out/adapter")).eval()(input_ids=ids).logits
    assert torch.allclose(got, beside, atol=1e-5) and not torch.allclose(got, before, atol=1e-3)
    assert torch.equal(model.lm_head.weight, start.get_output_embeddings().weight)
    assert (model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()) == tied
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "out/model").chat_template
        == (base / "chat_template.jinja").read_text()
    )


def test_equal_inputs_give_equal_bytes_and_the_log_holds_no_times(base: Path, rows: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, dict[str, float]]] = []
    for name in ("a", "b"):
        out = tmp_path / name
        sft.train(TrainConfig(**LORA, epochs=2.0), rows, base, out, progress=lambda *x: seen.append(x))
    assert sha(tmp_path / "a") == sha(tmp_path / "b")
    log = [json.loads(line) for line in (tmp_path / "a/loss.jsonl").read_text().splitlines()]
    report = json.loads((tmp_path / "a/train.json").read_text())
    steps = [entry for entry in log if "loss" in entry]
    assert [set(entry) for entry in steps] == [{"step", "loss", "lr", "tokens"}] * report["optimizer_steps"]
    assert [e["step"] for e in log if "validation_loss" in e] == [len(steps) // 2, len(steps)]
    assert report["trained_tokens"] == sum(e["tokens"] for e in steps) == 2 * pack_tokens(rows)
    assert [s[0] for s in seen] == [*range(1, len(steps) + 1)] * 2
    written = "".join(f.read_text() for f in (tmp_path / "a").rglob("*.json*"))
    assert str(tmp_path) not in written and str(base) not in written
    targets = json.loads((tmp_path / "a/adapter/adapter_config.json").read_text())["target_modules"]
    assert targets == sorted(targets)  # peft holds a set, whose order changes from process to process


def pack_tokens(rows: Path) -> int:
    return int(json.loads((rows / "pack.json").read_text())["train"]["supervised_tokens"])


@pytest.mark.parametrize("limit", [{"epochs": 0.0}, {"max_steps": 0}])
def test_no_steps_writes_the_untrained_model(base: Path, rows: Path, tmp_path: Path, limit: dict[str, Any]) -> None:
    numbers = sft.train(TrainConfig(**limit), rows, base, tmp_path)
    assert numbers["optimizer_steps"] == 0 and numbers["validation_loss"] > 1
    want = sft.load_model(base).state_dict()
    assert all(torch.equal(t, want[n]) for n, t in sft.load_model(tmp_path / "model").state_dict().items())


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from understudy.config import TrainConfig
from understudy.train import sft
torch.set_num_threads(1)
rows, base, out, scratch, config = sys.argv[1:]
die = lambda step, steps, numbers: step == 5 and os.kill(os.getpid(), signal.SIGKILL)
cfg = TrainConfig.model_validate_json(config)
sft.train(cfg, Path(rows), Path(base), Path(out), scratch=Path(scratch), progress=die)
"""


@pytest.mark.slow
def test_a_killed_run_resumes_bit_by_bit(base: Path, rows: Path, tmp_path: Path) -> None:
    cfg = TrainConfig(**LORA, max_steps=8, save_every_steps=2)
    scratch = tmp_path / "scratch"
    argv = [sys.executable, "-c", KILLED, *map(str, (rows, base, tmp_path / "killed", scratch)), cfg.model_dump_json()]
    died = subprocess.run(argv, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not (tmp_path / "killed").exists() and (scratch / "step-00000004").is_dir()
    done: list[int] = []
    sft.train(cfg, rows, base, tmp_path / "resumed", scratch=scratch, progress=lambda step, *_: done.append(step))
    sft.train(cfg, rows, base, tmp_path / "undisturbed")
    assert done == [5, 6, 7, 8]
    assert sha(tmp_path / "resumed") == sha(tmp_path / "undisturbed")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_damaged_and_foreign_checkpoints_are_passed_over(base: Path, rows: Path, tmp_path: Path, method: str) -> None:
    cfg = TrainConfig(**LORA, method=method, max_steps=8, save_every_steps=2)
    scratch, done = tmp_path / "scratch", list[int]()
    sft.train(cfg, rows, base, tmp_path / "one", scratch=scratch)
    assert [p.name for p in sorted(scratch.iterdir())] == ["step-00000004", "step-00000006"]
    tensors = scratch / "step-00000006/tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"?")  # a torn write
    (scratch / ".staging-00000008").mkdir()
    sft.train(cfg, rows, base, tmp_path / "two", scratch=scratch, progress=lambda step, *_: done.append(step))
    assert done == [5, 6, 7, 8] and sha(tmp_path / "one") == sha(tmp_path / "two")
    assert not list(scratch.glob(".staging-*"))
    other = cfg.model_copy(update={"seed": 1})
    sft.train(other, rows, base, tmp_path / "three", scratch=scratch, progress=lambda step, *_: done.append(step))
    assert done[4:] == list(range(1, 9))


def test_a_loss_that_is_not_finite_stops_the_run(rows: Path, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "tiny")
    model = sft.load_model(base)
    with torch.no_grad():
        model.model.norm.weight.fill_(1e38)
    model.save_pretrained(base)
    with pytest.raises(DataError, match="TRAIN_NONFINITE") as caught:
        sft.train(TrainConfig(max_steps=2), rows, base, tmp_path / "out")
    assert "step 1" in str(caught.value) and not (tmp_path / "out").exists()


def test_rows_without_labels_and_models_without_parameters_stop_before_the_first_step(
    base: Path, rows: Path, tmp_path: Path
) -> None:
    for array in rows.glob("train.*.npy"):
        (tmp_path / array.name).write_bytes(array.read_bytes())
    np.save(tmp_path / "train.loss_mask.npy", np.zeros_like(np.load(rows / "train.loss_mask.npy")))
    with pytest.raises(DataError, match="NO_LABELS"):
        sft.train(TrainConfig(max_steps=1), tmp_path, base, tmp_path / "out")
    with pytest.raises(DataError, match="NO_TRAINABLE"):
        adapters.trainable(torch.nn.Identity(), TrainConfig(method="full"))


def test_a_model_that_scales_its_logits_is_refused() -> None:
    from transformers import GraniteConfig, GraniteForCausalLM

    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    with pytest.raises(ConfigError, match="MODEL_HEAD"):
        sft.check_head(GraniteForCausalLM(GraniteConfig(**sizes, **heads, logits_scaling=4.0)))

"""Which parameters learn: LoRA matrices on every linear layer but the head, or the whole model.

The adapter file is written by hand instead of by peft: its own config lists target modules in set order and holds the
base's path, so that equal runs would differ in bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from understudy.config import TrainConfig
from understudy.errors import DataError


def trainable(model: Any, cfg: TrainConfig) -> tuple[Any, dict[str, Any]]:
    """(model to call, {name: parameter that learns}); for `lora` the model is a PeftModel around the given one.

    LoRA (Hu et al. 2021): rank and alpha from the config. Draws the matrices from torch's global generator.
    """
    if cfg.method == "lora":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=cfg.lora_rank,
            lora_alpha=cfg.lora_alpha,
            lora_dropout=cfg.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, lora)
    else:
        model.requires_grad_(True)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not learning:
        raise DataError("NO_TRAINABLE", f"train.method {cfg.method}", "no parameter learns", "try another method")
    return model, learning


def merged(model: Any) -> Any:
    """The plain transformers model: adapters added into the weights they stand beside."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def save_adapter(model: Any, out: Path) -> None:
    """`adapter_model.safetensors` and `adapter_config.json`, loadable with peft; equal runs give equal bytes."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    state = {name: t.detach().cpu().contiguous() for name, t in get_peft_model_state_dict(model).items()}
    save_file(state, str(out / "adapter_model.safetensors"), metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict() | {"base_model_name_or_path": None, "inference_mode": True}
    text = json.dumps(config, indent=1, sort_keys=True, default=_plain) + "\n"
    (out / "adapter_config.json").write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    """Sets in sorted order, enumerations by value."""
    return sorted(value) if isinstance(value, set | frozenset) else getattr(value, "value", str(value))

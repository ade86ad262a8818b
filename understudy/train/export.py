"""A model folder as one GGUF file (Qwen2 and Llama, 16 bit), which OpenVINO GenAI and llama.cpp read.

Matrices are float16, norms and biases float32. Llama's query and key rows are reordered, since GGUF keeps the two
halves of a rotary pair side by side. The tokenizer goes along; its regex must be one that GGUF has a name for.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from understudy.errors import ConfigError, DataError, extra

ARCHITECTURES = {"qwen2": "qwen2", "llama": "llama"}
"""model_type of config.json -> GGUF's name."""
LARGEST = 65504.0
"""The largest finite number of 16 bits."""
_SPLITS = {
    # The regex's telling part -> GGUF's name for the pre-tokenizer.
    r"\p{N}{1,3}": "llama-bpe",
    r"\p{N}": "qwen2",
}


def gguf(model: Path, out: Path) -> Path:
    """Write `out` from a model folder in safetensors; a file that is there is replaced in one step.

    Raises ConfigError EXPORT_ARCHITECTURE or EXPORT_TOKENIZER for what GGUF or this writer cannot say, DataError
    WEIGHTS_RANGE for weights beyond 16 bits, ResourceError EXTRA_MISSING without the package.
    """
    with extra("openvino"):
        from gguf import GGUFWriter

    config = _json(model / "config.json")
    arch, _ = exportable(model)
    draft = out.with_name(out.name + ".draft")
    writer = GGUFWriter(draft, arch)
    _sizes(writer, config)
    _tokenizer(writer, model, config)
    _weights(writer, model, config, arch)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(draft, out)
    return out


def exportable(model: Path) -> tuple[str, str]:
    """GGUF's names for the model's architecture and pre-tokenizer. Raises ConfigError where there is none."""
    config = _json(model / "config.json")
    arch = ARCHITECTURES.get(config.get("model_type", ""))
    if arch is None or (config.get("rope_parameters") or {}).get("rope_type", "default") != "default":
        what = f"a {config.get('model_type')} model of its kind cannot be written as GGUF here"
        raise ConfigError("EXPORT_ARCHITECTURE", model.name, what, "use a Qwen2 or Llama base, or engine: transformers")
    held = _json(model / "tokenizer.json")
    split = json.dumps(held.get("pre_tokenizer"))
    pre = next((name for part, name in _SPLITS.items() if json.dumps(part)[1:-1] in split), None)
    if held["model"].get("type") != "BPE" or held["model"].get("byte_fallback") or pre is None:
        what = "its tokenizer is no byte-level BPE that GGUF has a name for"
        raise ConfigError("EXPORT_TOKENIZER", model.name, what, "use engine: transformers for this base")
    return arch, pre


def _json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return dict(value)


def _sizes(writer: Any, config: dict[str, Any]) -> None:
    heads = int(config["num_attention_heads"])
    writer.add_file_type(1)  # mostly float16
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    rope = config.get("rope_parameters") or {}
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _tokenizer(writer: Any, model: Path, config: dict[str, Any]) -> None:
    import gguf as g

    held = _json(model / "tokenizer.json")
    bpe = held["model"]
    added = {t["id"]: t["content"] for t in held.get("added_tokens", [])}
    names = {i: text for text, i in bpe["vocab"].items()} | added
    kinds = g.TokenType
    rows = [(names[i], kinds.CONTROL if i in added else kinds.NORMAL) if i in names else (f"[UNUSED{i}]", kinds.UNUSED)
            for i in range(config["vocab_size"])]  # fmt: skip
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(exportable(model)[1])
    writer.add_token_list([text for text, _ in rows])
    writer.add_token_types([kind for _, kind in rows])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]])
    for key in ("bos", "eos", "pad"):
        value = config.get(f"{key}_token_id")
        value = value[0] if isinstance(value, list) else value
        if value is not None:
            getattr(writer, f"add_{key}_token_id")(value)
    writer.add_add_bos_token(False)
    if (template := model / "chat_template.jinja").is_file():
        writer.add_chat_template(template.read_text("utf-8"))


def _weights(writer: Any, model: Path, config: dict[str, Any], arch: str) -> None:
    import gguf as g
    import numpy as np
    from safetensors import safe_open

    known = {name: number for number, name in g.MODEL_ARCH_NAMES.items()}
    mapped = g.get_tensor_name_map(known[arch], config["num_hidden_layers"])
    heads = {
        "q": config["num_attention_heads"],
        "k": config.get("num_key_value_heads") or config["num_attention_heads"],
    }
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                    continue
                target = mapped.get_name(name, try_suffixes=(".weight", ".bias"))
                if target is None:
                    raise ConfigError(
                        "EXPORT_ARCHITECTURE", name, "GGUF has no name for it", "use engine: transformers"
                    )
                values = tensors.get_tensor(name).float().numpy()
                if not np.abs(values).max(initial=0.0) <= LARGEST:
                    raise DataError("WEIGHTS_RANGE", name, "holds numbers beyond 16 bits", "use engine: transformers")
                part = name.rsplit(".", 2)[-2]
                if arch == "llama" and part in ("q_proj", "k_proj"):
                    values = _paired(values, heads[part[0]])
                writer.add_tensor(target, values if values.ndim == 1 else values.astype(np.float16))


def _paired(values: Any, heads: int) -> Any:
    """(heads x [first halves, second halves], in) -> (heads x pairs, in)."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)

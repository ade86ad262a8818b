"""The base model's files: where they come from, their digest, and how they are taken in."""

from __future__ import annotations

import json
import os
import shutil
from math import prod
from pathlib import Path

from understudy.config import BaseConfig
from understudy.core.records import digest, sha256_file
from understudy.errors import ConfigError, DataError, IntegrityError
from understudy.models.tiny import BASES

_KEEP = (".json", ".safetensors", ".jinja", ".txt", ".model", ".md")
_NEEDED = ("config.json", "tokenizer.json")


def locate(path: str, project: Path) -> Path:
    """Folder of the base that the configuration names. Raises ConfigError when it is no model folder."""
    if path in BASES:
        return BASES[path]
    folder = project / path
    if not folder.is_dir():
        raise ConfigError(
            "BASE_NOT_FOUND", path, "no such model folder", "give `tiny`, `tiny-ru` or a folder with config.json"
        )
    for name in _NEEDED:
        if not (folder / name).is_file():
            raise ConfigError("BASE_INCOMPLETE", path, f"has no {name}", "export the model with save_pretrained")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise IntegrityError("PICKLE_REFUSED", path, "has no safetensors weights", "convert it in isolation first")
    for file in weights:
        shapes(file)
    for file in folder.glob("*.json"):
        try:
            json.loads(file.read_bytes())
        except ValueError as e:
            raise IntegrityError("BASE_CORRUPT", file, f"no JSON: {e}", "copy or download it again") from None
    return folder


def shapes(weights: Path) -> dict[str, list[int]]:
    """Shape of each tensor, from the header alone. Raises IntegrityError BASE_CORRUPT on a damaged or cut file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    except SafetensorError as e:
        raise IntegrityError("BASE_CORRUPT", weights, f"not whole: {e}", "copy or download it again") from None


def files(folder: Path) -> list[Path]:
    """The files that make the model: weights in safetensors, configuration, tokenizer, template, card."""
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in _KEEP)


def take_in(cfg: BaseConfig, project: Path, out: Path) -> dict[str, str]:
    """Copy the model's files to `out`; returns {model, digest}. Raises DataError FILE_CHANGED."""
    folder = locate(cfg.path, project)
    out.mkdir(parents=True)
    for path in files(folder):
        shutil.copyfile(path, out / path.name)  # a copy: the user's folder may change in place later
    taken = folder_digest(out)
    if cfg.digest and taken != cfg.digest:
        what = "the model's files changed since the run was bound"
        raise DataError("FILE_CHANGED", cfg.path, what, "`understudy run` binds what is there now")
    return {"model": cfg.path, "digest": taken}


def float32_bytes(folder: Path) -> int:
    """Bytes of the weights once they are tuned: every number in float32, as the safetensors headers count them."""
    return sum(4 * prod(shape) for path in folder.glob("*.safetensors") for shape in shapes(path).values())


def folder_digest(folder: Path) -> str:
    return digest({p.name: sha256_file(p) for p in files(folder)})


def copy_tree(source: Path, out: Path) -> None:
    """Copy the content of a committed artifact into another, sharing the bytes where the file system can."""
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        relative = path.relative_to(source)
        if relative.parts[0] not in ("artifact.json", "measured.json"):
            (out / relative).parent.mkdir(parents=True, exist_ok=True)
            _link(path, out / relative)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

"""A release: the candidate's model, its card for people, and `release.json` with the digests that serving proves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

SCHEMA = 1
DECODING = ("max_new_tokens", "temperature", "top_p")
_TEMPLATES = Path(__file__).parent / "templates"
_ON_CARD = ("name", "teacher", "judge", "service", "licences", "decoding", "base", "training", "data")
ROLES = ("teacher", "judge", "service")
_SHOWN = ("provider", "model", "base_url", "sampling", "versions", "templates", "terms")


def write_release(
    out: Path, *, checkpoint: Path, verdict: dict[str, Any], card: dict[str, Any], engine: dict[str, Any] | None = None
) -> None:
    """Write `model/`, `MODEL_CARD.md` and `release.json` into `out`; equal inputs give equal bytes.

    `engine` {name, version, properties} is what the held answers came from and what serves it; its files and the parity
    certificate lie in `out` already.

    `card` holds name, teacher, judge, service, licences, decoding, base, training and data; what is missing is said to
    be missing. A role has provider, model, base_url, what its artifacts say of it (sampling, versions, templates) and
    `terms` {training, url, says, read}; whatever else stands there, such as a key, is never copied.
    """
    model = out / "model"
    model.mkdir(parents=True, exist_ok=True)
    for source in sorted(p for p in (checkpoint / "model").rglob("*") if p.is_file()):
        target = model / source.relative_to(checkpoint / "model")
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(source, target)
    card = {**card, **{role: _service(card.get(role)) for role in ROLES}}
    (out / "MODEL_CARD.md").write_text(_card(verdict, card), "utf-8")
    files = sorted(p for p in out.rglob("*") if p.is_file())
    release = {
        "schema_version": SCHEMA,
        "name": card.get("name"),
        "passed": bool(verdict["passed"]) and not verdict.get("control"),
        "control": verdict.get("control"),
        "decoding": {key: value for key, value in (card.get("decoding") or {}).items() if key in DECODING},
        "engine": engine or {"name": "transformers"},
        "base": card.get("base"),
        "metric": verdict.get("metric"),
        "held": verdict.get("held", {}),
        "files": {p.relative_to(out).as_posix(): _sha256(p) for p in files},
    }
    text = json.dumps(release, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    (out / "release.json").write_text(text, "utf-8")


def _service(settings: dict[str, Any] | None) -> dict[str, Any] | None:
    return {key: settings[key] for key in _SHOWN if settings.get(key)} if settings else None


def _card(verdict: dict[str, Any], card: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, autoescape=False,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["cell"] = lambda value: " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
    known = {key: card.get(key) for key in _ON_CARD}
    simulated = [role for role in ROLES if (known[role] or {}).get("provider") == "simulated"]
    judged = [m for m in ("coverage", "judge_similarity", "judge_precision") if "judge" in simulated]
    template = environment.get_template("MODEL_CARD.md.j2")
    return template.render(verdict=verdict, simulated=simulated, judged=judged, **known)


def _link(source: Path, target: Path) -> None:
    """Share the bytes where the file system can; artifacts are immutable."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()

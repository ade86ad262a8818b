"""A score from a transformers sequence-classification model: the probability of one label, or a place on a scale.

The model is a folder, or a hub repository at a pinned commit; only safetensors weights are read, and no code of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from understudy.config import ClassifierConfig
from understudy.core.records import Example
from understudy.errors import ConfigError, DataError, IntegrityError, RemoteError, extra
from understudy.evals.scorers.base import Score, context, question, references

BATCH = 16
DIGITS = 4
"""Decimals that are kept: padding to another batch's length moves the sixth."""
BESIDE: dict[str, Callable[[Example], str]] = {
    "relevance": question, "faithfulness": context, "completeness": lambda e: next(iter(references(e)), ""),
}  # fmt: skip
"""Metric -> the text that the answer is paired with; the other metrics read the answer alone."""


class Classifier:
    """Loads once, scores many. Raises ConfigError, DataError, IntegrityError or RemoteError when it cannot be read."""

    def __init__(self, cfg: ClassifierConfig, project: Path, where: str) -> None:
        source, options = locate(cfg, project, where)
        with extra("local"):
            import transformers
        transformers.utils.logging.disable_progress_bar()
        load: Any = transformers.AutoModelForSequenceClassification.from_pretrained
        try:
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(source, **options)
            model = load(source, use_safetensors=True, **options)
        except (OSError, ValueError) as e:
            what = str(e).strip().splitlines()[0][:200]
            if isinstance(source, Path):
                raise DataError("MODEL_UNREADABLE", where, what, "save it again with save_pretrained") from None
            raise RemoteError("HUB_UNAVAILABLE", where, what, "download it first and give its folder") from None
        self._tokenizer, self._model = tokenizer, model.eval()
        self._labels = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
        if cfg.label is not None and cfg.label not in self._labels:
            raise ConfigError("LABEL_UNKNOWN", where, f"no label {cfg.label!r}", f"one of: {', '.join(self._labels)}")
        self._label = cfg.label

    def score(self, metric: str, unit: str, items: Sequence[tuple[Example, str]]) -> list[Score]:
        """One score per (example, answer), in order; 0..1, or 1..5 for a metric that counts levels."""
        import torch

        order = sorted(range(len(items)), key=lambda i: (len(items[i][1]), i))
        scores: list[Score] = [Score(0.0)] * len(items)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            beside = [BESIDE[metric](items[i][0]) for i in rows] if metric in BESIDE else None
            answers = [items[i][1] for i in rows]
            texts = (beside, answers) if beside is not None else (answers,)
            inputs = self._tokenizer(*texts, padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                logits = self._model(**inputs).logits.double()
            for i, row in zip(rows, self._probabilities(logits), strict=True):
                scores[i] = self._score(row, unit)
        return scores

    def _probabilities(self, logits: Any) -> list[list[float]]:
        """(batch, labels) probabilities; a model with one output gives that of its only label."""
        one = logits.shape[-1] == 1
        return list((logits.sigmoid() if one else logits.softmax(-1)).tolist())

    def _score(self, row: list[float], unit: str) -> Score:
        if self._label is not None:
            place = row[self._labels.index(self._label)]
        elif len(row) == 1:
            place = row[0]
        else:
            place = sum(i * p for i, p in enumerate(row)) / (len(row) - 1)
        likeliest = max(range(len(row)), key=lambda i: row[i])
        value = place if unit == "share" else 1 + 4 * place
        return Score(round(value, DIGITS), f"{self._labels[likeliest]} {row[likeliest]:.2f}")


def locate(cfg: ClassifierConfig, project: Path, where: str) -> tuple[Path | str, dict[str, Any]]:
    """(folder or hub id, from_pretrained's options). Raises ConfigError for no folder and an unpinned hub id."""
    folder = project / cfg.model
    if folder.is_dir():
        if not list(folder.glob("*.safetensors")):
            what, fix = "has no safetensors weights", "convert it in isolation first"
            raise IntegrityError("PICKLE_REFUSED", cfg.model, what, fix)
        return folder, {"local_files_only": True}
    if cfg.model.startswith((".", "/", "~")) or cfg.model.count("/") != 1:
        raise ConfigError(
            "MODEL_NOT_FOUND", where, f"no folder {cfg.model!r}", "give a model folder, or org/name of a hub"
        )
    if cfg.revision is None:
        raise ConfigError(
            "HUB_UNPINNED", where, f"{cfg.model} has no revision", "set `revision` to a commit of 40 digits"
        )
    return cfg.model, {"revision": cfg.revision}

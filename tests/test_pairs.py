"""Sentence pairs: whole likelihoods are compared, as the model's own loss says, and counted with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from understudy.errors import DataError
from understudy.evals.pairs import Pair, preferences, read_pairs
from understudy.models.local import LocalModel
from understudy.models.tiny import BASE_DIR


class Known:
    """A model whose losses are written in the texts: `loss tokens`."""

    def text_losses(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        return [(float(loss), int(tokens)) for loss, tokens in (text.split() for text in texts)]


def test_the_likelier_sentence_is_preferred_and_ties_and_long_ones_are_left_out() -> None:
    pairs = [
        Pair("1 3", "2 3", "age", "stereo"),
        Pair("3 4", "2 3", "age", "antistereo"),
        Pair("1 2", "5 9", "race", "stereo"),
        Pair("2 2", "2 2", "race", "stereo"),
        Pair("0 0", "2 2", "race", "stereo"),
    ]
    found = preferences(Known(), pairs)
    assert (found["pairs"], found["ties"], found["too_long"]) == (5, 1, 1)
    assert found["all"]["n"] == 3 and found["all"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["equal_length"]["n"] == 1 and found["by_kind"]["race"]["value"] == 1.0
    assert found["by_direction"]["antistereo"]["value"] == 0.0 and found["by_kind"]["age"]["low"] > 0


def test_the_loss_of_a_text_is_the_models_own() -> None:
    """Against transformers' loss of the same tokens, one text at a time, without our batching."""
    import torch
    from transformers import AutoModelForCausalLM

    texts = ["The poor are honest.", "Mira Kell teaches Urban Botany on Friday.", "Yes."]
    local = LocalModel(BASE_DIR, batch_size=2)
    model = AutoModelForCausalLM.from_pretrained(BASE_DIR, dtype=torch.float32, local_files_only=True).eval()
    for text, (loss, count) in zip(texts, local.text_losses(texts), strict=True):
        ids = torch.tensor([local.template.end_ids[:1] + local.template.encode_text(text)])
        with torch.inference_mode():
            mean = model(input_ids=ids, labels=ids).loss
        assert count == ids.shape[1] - 1 and loss == pytest.approx(float(mean) * count, rel=1e-4)
    assert local.text_losses(["word " * 20_000]) == [(0.0, 0)]


def test_a_file_in_the_columns_of_crows_pairs_is_read_with_quoted_commas(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(
        ',sent_more,sent_less,stereo_antistereo,bias_type\n0,"A, b.",C.,antistereo,age\n1,D.,E.,stereo,race\n'
    )
    assert read_pairs(file) == [Pair("A, b.", "C.", "age", "antistereo"), Pair("D.", "E.", "race", "stereo")]


@pytest.mark.parametrize(
    "text, what",
    [
        ("a,b\n1,2\n", "sent_more"),
        ("sent_more,sent_less,bias_type\nA,,age\n", r"pairs.csv:2"),
        ("sent_more,sent_less,bias_type\n", "no pairs"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(DataError, match=f"PAIRS_SHAPE.*{what}"):
        read_pairs(tmp_path / "pairs.csv")

"""The shipped tiny base: its files, tokenizer, card, text and what it can do."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from understudy.models.tiny import BASE_DIR
from understudy.models.tiny.names import FORBIDDEN
from understudy.models.tiny.text import KINDS, evaluation_rows, training_rows

LIMIT_BYTES = 10_000_000


@pytest.fixture(scope="module")
def base() -> tuple[Any, Any]:
    """Model in float32 and tokenizer, read from the shipped files."""
    from understudy.models.tiny.measure import load

    return load(BASE_DIR)


def test_all_files_are_there_and_small() -> None:
    names = {path.name for path in BASE_DIR.iterdir()}
    assert names == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    }
    assert sum(path.stat().st_size for path in BASE_DIR.iterdir()) < LIMIT_BYTES


def test_generation_stops_at_the_end_of_a_turn() -> None:
    config = json.loads((BASE_DIR / "generation_config.json").read_text())
    vocabulary = json.loads((BASE_DIR / "tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in vocabulary["added_tokens"]}
    assert (config["eos_token_id"], config["pad_token_id"]) == (ids["<|im_end|>"], ids["<|endoftext|>"])


def test_card_is_written_from_the_measured_figures() -> None:
    from understudy.models.tiny.card import write

    figures = json.loads((BASE_DIR / "training.json").read_text())
    readme = (BASE_DIR / "README.md").read_text()
    assert readme == write(figures)
    assert "license: apache-2.0" in readme and "A fixture, not a product" in readme
    assert set(figures["kinds"]) == {*KINDS, "all"}


def test_no_file_names_a_place_on_some_machine() -> None:
    folder = BASE_DIR.parent
    for path in [*folder.glob("*.py"), *BASE_DIR.glob("*.json"), BASE_DIR / "README.md"]:
        if path.name != "tokenizer.json":
            assert not re.search(r"/(home|root|tmp|work|Users)/", path.read_text()), path.name


def test_auto_tokenizer_gives_the_ids_of_tokenizers() -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(BASE_DIR)
    plain = Tokenizer.from_file(str(BASE_DIR / "tokenizer.json"))
    texts = [message["content"] for row in itertools.islice(training_rows(7), 150) for message in row.messages]
    texts += [" 77", "a\n\n b  c", "It's 3.75 €, naïve – 東京", "<|im_start|>user\nHi<|im_end|>\n", "e\u0301"]
    assert [auto(text, add_special_tokens=False)["input_ids"] for text in texts] == [
        plain.encode(text).ids for text in texts
    ]
    assert auto.decode(plain.encode("Tamir Veldon, B12 at 10:30.").ids) == "Tamir Veldon, B12 at 10:30."


def test_template_is_chatml_without_a_default_system_prompt() -> None:
    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(BASE_DIR)
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    text = auto.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )


def test_trained_text_is_the_template_text() -> None:
    from transformers import AutoTokenizer

    from understudy.models.tiny.batches import segments

    auto = AutoTokenizer.from_pretrained(BASE_DIR)
    for row in itertools.islice(training_rows(11), 60):
        text = "".join(part for part, _ in segments(row))
        assert auto.apply_chat_template(row.messages, tokenize=False) == text + "\n"
        learned = [part for part, supervised in segments(row) if supervised]
        said = [message["content"] for message in row.messages if message["role"] == "assistant"]
        assert learned == [answer + "<|im_end|>" for answer in said[row.supervise_from :]]


@pytest.mark.slow
def test_text_stays_out_of_the_products_domains() -> None:
    words = set()
    for row in itertools.islice(training_rows(3), 20_000):
        for message in row.messages:
            words.update(re.findall(r"[a-z]+", message["content"].lower()))
    assert not words & FORBIDDEN


def test_text_is_a_function_of_the_seed() -> None:
    first = list(itertools.islice(training_rows(5), 50))
    assert first == list(itertools.islice(training_rows(5), 50))
    assert first != list(itertools.islice(training_rows(6), 50))


def test_evaluation_values_are_never_in_training() -> None:
    seen = set()
    for row in itertools.islice(training_rows(21), 2000):
        seen.update(value for value in row.values)
    held = {
        value for kind in ("who", "where", "price") for row in evaluation_rows(4, kind, 100) for value in row.values
    }
    assert len(held) > 250
    assert not held & seen


@pytest.mark.slow
def test_copies_unseen_names_in_full_sentences(base: tuple[Any, Any]) -> None:
    from understudy.models.tiny.measure import answers

    model, tokenizer = base
    rows = [row for kind in KINDS for row in evaluation_rows(99, kind, 8)]
    found = answers(model, tokenizer, rows, batch_size=36)
    exact = sum(answer == row.messages[-1]["content"] for answer, row in zip(found, rows, strict=True))
    # The share of the card, less three standard errors of 72 answers.
    share = json.loads((BASE_DIR / "training.json").read_text())["kinds"]["all"]["share"]
    assert exact / len(rows) >= share - 3 * (share * (1 - share) / len(rows)) ** 0.5, f"{exact} of {len(rows)} right"
    assert exact / len(rows) > 0.5


def test_packed_rows_do_not_see_each_other(base: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = base
    texts = [row.messages[0]["content"] for row in evaluation_rows(1, "who", 3)]
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    packed = torch.tensor([sum(rows, [])])  # (1, seq) int64
    positions = torch.tensor([[at for row in rows for at in range(len(row))]])  # (1, seq) int64
    with torch.inference_mode():
        together = model(input_ids=packed, position_ids=positions, use_cache=False).logits[0]
        alone = torch.cat([model(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in rows])
    assert torch.allclose(together, alone, atol=1e-3)


def test_importing_the_package_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys, understudy.models.tiny as t; print(t.BASE_DIR.name, *{'torch', 'transformers'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[1]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert out.stdout.split() == ["base"]

"""OpenVINO beside transformers: the exported file, greedy answers, probabilities, draws, and the parity certificate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from understudy.core.records import Example
from understudy.errors import ConfigError, DataError, IntegrityError
from understudy.models import parity
from understudy.models.base import Sampling
from understudy.models.local import LocalModel
from understudy.models.openvino import OpenVinoModel
from understudy.models.tiny import BASE_DIR
from understudy.train.export import gguf

ROOMS = ("Monday at 9:15 in room A1", "Friday at 14:00 in room C41", "Tuesday at 8:30 in the old hall", "noon in B7")
ASKED = ("When does it meet?", "Who teaches it?", "How many credits?")


def about(i: int) -> str:
    passage = f"Mira Kell teaches Botany {i}. Botany {i} meets on {ROOMS[i % 4]} and gives {i} credits."
    return f"{passage}\n\nQuestion: {ASKED[i % 3]}"


CHATS = [[{"role": "user", "content": about(i)}] for i in range(40)]
GREEDY = Sampling(max_new_tokens=24)
DRAWN = Sampling(max_new_tokens=24, temperature=1.0, top_p=0.9, seed=3)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> OpenVinoModel:
    return OpenVinoModel(BASE_DIR, gguf(BASE_DIR, tmp_path_factory.mktemp("gguf") / "model.gguf"))


@pytest.fixture(scope="module")
def reference() -> LocalModel:
    return LocalModel(BASE_DIR)


def test_greedy_answers_equal_those_of_transformers(served: OpenVinoModel, reference: LocalModel) -> None:
    assert served.generate(CHATS, GREEDY) == reference.generate(CHATS, GREEDY)


def test_it_finds_given_answers_as_likely_as_transformers(served: OpenVinoModel, reference: LocalModel) -> None:
    examples = [Example(str(i), [*c, {"role": "assistant", "content": ROOMS[i % 4]}]) for i, c in enumerate(CHATS)]
    examples.insert(3, Example("open", CHATS[0]))
    mine, theirs = served.reference_losses(examples), reference.reference_losses(examples)
    assert [n for _, n in mine] == [n for _, n in theirs] and mine[3] == (0.0, 0)
    assert [loss for loss, _ in mine] == pytest.approx([loss for loss, _ in theirs], rel=2e-3, abs=0.02)


def test_draws_hang_on_the_chat_and_the_seed_and_on_no_neighbour(served: OpenVinoModel) -> None:
    together = served.generate(CHATS[:12], DRAWN)
    assert together == [served.generate([c], DRAWN)[0] for c in CHATS[:12]]
    other = Sampling(max_new_tokens=24, temperature=1.0, top_p=0.9, seed=4)
    assert together != served.generate(CHATS[:12], other)
    assert len({a.text for a in served.generate(CHATS[:1] * 3, DRAWN)}) == 1


def test_streams_equal_answers_and_stop_texts_end_them(served: OpenVinoModel, reference: LocalModel) -> None:
    stopped = Sampling(max_new_tokens=24, stop=("at", "room"))
    for chat in CHATS[:6]:
        for sampling in (GREEDY, stopped):
            deltas = list(served.stream(chat, sampling))
            want = reference.generate([chat], sampling)[0]
            assert "".join(d.text for d in deltas) == want.text
            assert (deltas[-1].finish_reason, deltas[-1].completion_tokens) == (
                want.finish_reason,
                want.completion_tokens,
            )


def test_the_length_ends_an_answer_and_a_prompt_beyond_the_context_is_refused(served: OpenVinoModel) -> None:
    (cut,) = served.generate(CHATS[:1], Sampling(max_new_tokens=2))
    assert cut.finish_reason == "length" and cut.completion_tokens == 2
    with pytest.raises(DataError, match="context_length_exceeded"):
        served.generate([CHATS[0], [{"role": "user", "content": "red " * 3000}]], GREEDY)


def test_an_answer_that_is_given_up_leaves_the_others_alone(served: OpenVinoModel) -> None:
    running = served.running()
    for key, chat in enumerate(CHATS[:4]):
        running.add(key, chat, GREEDY)
    found: dict[int, str] = dict.fromkeys(range(4), "")
    for _ in range(3):
        found |= {key: found[key] + delta.text for key, delta in running.step()}
    running.cancel(1)
    while running.busy:
        for key, delta in running.step():
            assert key != 1
            found[key] += delta.text
    want = served.generate(CHATS[:4], GREEDY)
    assert [found[k] for k in (0, 2, 3)] == [want[k].text for k in (0, 2, 3)]


# The exported file


def architecture(folder: Path, kind: str, **changes: Any) -> Path:
    """A random model of another architecture or shape, with the tiny base's tokenizer and template."""
    import transformers

    torch.manual_seed(5)
    shutil.copytree(BASE_DIR, folder)
    held = json.loads((BASE_DIR / "config.json").read_text())
    sizes = {
        k: held[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "eos_token_id")
    }
    given = {**sizes, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, **changes}
    model_type = {"qwen2": transformers.Qwen2Config, "llama": transformers.LlamaConfig, "gpt2": transformers.GPT2Config}
    config = model_type[kind](**given, initializer_range=0.2)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):  # one that says something
                value.normal_(0, 0.5)
            value.copy_(value.half().float())  # so that the file holds every number exactly
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("llama", {}), ("llama", {"tie_word_embeddings": True, "rope_theta": 500000.0}), ("qwen2", {})],
    ids=["llama", "llama-tied", "qwen2-untied-grouped"],
)
def test_other_shapes_answer_as_transformers_does(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    folder = architecture(tmp_path / "model", kind, **changes)
    model, reference = OpenVinoModel(folder, gguf(folder, tmp_path / "m.gguf")), LocalModel(folder)
    certificate = parity.certify(reference.template, reference.ends, {}, CHATS[:16])
    far = parity.check_numeric(parity.measured(certificate, reference), model, "m")
    assert far["tokens"] > 300 and far["p99"] < 1e-3


def test_every_weight_is_in_the_file_to_16_bits(tmp_path: Path) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(gguf(BASE_DIR, tmp_path / "m.gguf"))
    held = {t.name: np.array(t.data, dtype=np.float32) for t in reader.tensors}
    own = load_file(BASE_DIR / "model.safetensors")
    assert len(held) == len(own)
    assert np.array_equal(held["blk.2.attn_q.weight"], own["model.layers.2.self_attn.q_proj.weight"].float().numpy())
    assert np.array_equal(held["token_embd.weight"], own["model.embed_tokens.weight"].float().numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_what_gguf_cannot_say_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BASE_DIR, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(ConfigError, match="EXPORT_ARCHITECTURE"):
        gguf(folder, tmp_path / "m.gguf")
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "pre_tokenizer": None}))
    with pytest.raises(ConfigError, match="EXPORT_TOKENIZER"):
        gguf(folder, tmp_path / "m.gguf")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    weights = load_file(folder / "model.safetensors")
    weights = {k: v.float() for k, v in weights.items()}
    weights["model.norm.weight"][3] = 1e6
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(DataError, match="WEIGHTS_RANGE"):
        gguf(folder, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


# The certificate


@pytest.fixture(scope="module")
def certificate(reference: LocalModel) -> dict[str, Any]:
    exact = parity.certify(reference.template, reference.ends, {"temperature": 0.0}, CHATS)
    return json.loads(json.dumps(parity.measured(exact, reference)))  # type: ignore[no-any-return]


def test_the_engine_that_serves_what_was_trained_passes(served: OpenVinoModel, certificate: dict[str, Any]) -> None:
    parity.check_exact(certificate, served.template, served.ends, {"temperature": 0.0})
    far = parity.check_numeric(certificate, served, "m")
    assert far["tokens"] > 300 and far["p99"] < 0.005


def test_weights_that_moved_a_little_are_refused_with_the_first_difference(
    tmp_path: Path, certificate: dict[str, Any]
) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(BASE_DIR, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.3.mlp.down_proj.weight"] *= 1.1
    save_file(weights, folder / "model.safetensors")
    moved = OpenVinoModel(folder, gguf(folder, tmp_path / "m.gguf"))
    with pytest.raises(IntegrityError, match=r"PARITY.* m: .*first those of token \d+ of probe \d+'s answer"):
        parity.check_numeric(certificate, moved, "m")


def test_another_greedy_choice_is_refused_unless_it_was_near_a_tie(
    served: OpenVinoModel, certificate: dict[str, Any]
) -> None:
    changed = json.loads(json.dumps(certificate))
    probe = changed["probes"][4]
    probe["answer"] = [*probe["answer"][:2], 77, *probe["answer"][3:]]
    probe["log_probabilities"] = served.log_probabilities([probe["prompt"] + probe["answer"]])[0][
        len(probe["prompt"]) - 1 :
    ]
    with pytest.raises(IntegrityError, match="token 3 of probe 5's answer"):
        parity.check_numeric(changed, served, "m")
    # Behind a near tie the engine is led on past it, and what follows is compared again.
    probe["margins"][2] = 0.01
    with pytest.raises(IntegrityError, match=r"token ([4-9]|\d\d) of probe 5's answer"):
        probe["margins"][3:] = [9.0] * len(probe["margins"][3:])
        parity.check_numeric(changed, served, "m")


def test_template_ends_decoding_and_tokens_are_compared(served: OpenVinoModel, certificate: dict[str, Any]) -> None:
    for change, what in (
        ({"template": "x"}, "template"), ({"ends": [2, 3]}, "ends"), ({"decoding": {"temperature": 0.5}}, "decoding"),
    ):  # fmt: skip
        with pytest.raises(IntegrityError, match=f"PARITY.*{what}"):
            parity.check_exact({**certificate, **change}, served.template, served.ends, {"temperature": 0.0})
    probes = json.loads(json.dumps(certificate["probes"]))
    probes[7]["prompt"][5] += 1
    with pytest.raises(IntegrityError, match="token 6 of probe 8's prompt"):
        parity.check_exact({**certificate, "probes": probes}, served.template, served.ends, {"temperature": 0.0})

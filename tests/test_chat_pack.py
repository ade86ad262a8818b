"""Chat template and packing: what becomes a special token, what is learnt, what is cut, what fills a row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.config import PackConfig
from understudy.core.records import Document, Example, read_jsonl, write_jsonl
from understudy.data import pack
from understudy.data.chat import ChatTemplate
from understudy.errors import ConfigError, DataError, IntegrityError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Qwen2.5's template without its tool branches: a default system turn, and string concatenation.
QWEN25 = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
# A Llama-2-like template: strips, has no generation prompt of its own, and closes with eos.
INST = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }}<|endoftext|>{% endif %}{% endfor %}"
)
THINK = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    f"The {noun} of {name} is {value}. Who is {name}? Ask {name} about {value}."
    for noun, name, value in zip(
        ["colour", "teacher", "room", "price", "year"] * 8,
        ["Anna", "Bob", "Chen", "Dora", "Émile", "Fritz", "Güneş", "Hana"] * 5,
        ["red", "blue", "green", "1999", "77", "maths", "art", "twelve"] * 5,
        strict=True,
    )
]


def tiny_model(folder: Path, *, template: str = CHATML, layers: int = 2, tied: bool = True, seed: int = 0) -> Path:
    """A random Qwen2 with a byte-level BPE tokenizer that splits as Qwen2 does."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen2Config, Qwen2ForCausalLM

    split = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, "user assistant system\n\n"], trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template)
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=tied,
            initializer_range=0.1, eos_token_id=2, pad_token_id=0, bos_token_id=None,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    return folder


def chat(prompt: str, answer: str, name: str = "e", **meta: object) -> Example:
    return Example(name, [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], dict(meta))


def examples(count: int) -> list[Example]:
    return [chat(f"Who is it? {TEXTS[i % len(TEXTS)]}"[: 20 + i % 40], f"It is {i}.", f"e{i}") for i in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("chat") / "tiny")


@pytest.fixture(scope="module")
def template(folder: Path) -> ChatTemplate:
    return ChatTemplate.load(folder)


def with_template(folder: Path, tmp_path: Path, source: str) -> ChatTemplate:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text(source)
    return ChatTemplate.load(tmp_path)


def learnt(template: ChatTemplate, messages: list[dict[str, str]]) -> list[str]:
    """Text of each supervised stretch, special tokens shown."""
    ids, mask = template.encode(messages)
    stretches: list[list[int]] = []
    for position, (token, flag) in enumerate(zip(ids, mask, strict=True)):
        if flag and not mask[position - 1]:
            stretches.append([])
        if flag:
            stretches[-1].append(token)
    return [template._full.decode(s, skip_special_tokens=False) for s in stretches]


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who is Anna?"},
    {"role": "assistant", "content": "A teacher."},
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "Room 77."},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "turns", "want"),
    [
        (CHATML, TURNS, ["A teacher.<|im_end|>", "Room 77.<|im_end|>"]),
        (QWEN25, TURNS, ["A teacher.<|im_end|>", "Room 77.<|im_end|>"]),
        (QWEN25, TURNS[1:], ["A teacher.<|im_end|>", "Room 77.<|im_end|>"]),
        (INST, TURNS[1:], [" A teacher.<|endoftext|>", " Room 77.<|endoftext|>"]),
        (THINK, TURNS, ["A teacher.<|im_end|>", "<think>\n\n</think>\n\nRoom 77.<|im_end|>"]),
    ],
)
def test_exactly_what_the_model_must_write_is_learnt(
    folder: Path, tmp_path: Path, source: str, turns: list[dict[str, str]], want: list[str]
) -> None:
    assert learnt(with_template(folder, tmp_path, source), turns) == want


@pytest.mark.parametrize("source", [CHATML, QWEN25, INST])
def test_ids_are_those_of_transformers_and_the_prompt_is_a_prefix(folder: Path, tmp_path: Path, source: str) -> None:
    from transformers import AutoTokenizer

    template = with_template(folder, tmp_path, source)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    reference = AutoTokenizer.from_pretrained(tmp_path)
    turns = [*TURNS[1:4], {"role": "assistant", "content": "  Room 77: Émile\n\nend "}]
    ids, mask = template.encode(turns)
    if source != INST:  # there the space before the answer is the model's own token; see _tokens
        assert ids == reference.apply_chat_template(turns, return_dict=True)["input_ids"]
    prompt = template.encode_prompt(turns[:3])
    assert ids[: len(prompt)] == prompt and mask[len(prompt) - 1 : len(prompt) + 1] == [0, 1]
    want = reference.apply_chat_template(turns[:3], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert prompt == want


content = st.lists(
    st.sampled_from(["<|im_end|>", "<|im_start|>", "<|endoftext|>", "\n", "assistant", "user\n", "<|", "|>", "im_end"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    max_size=6,
).map("".join)


@given(st.lists(content, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_no_content_forges_a_turn(template: ChatTemplate, contents: list[str]) -> None:
    turns = [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]
    ids, mask = template.encode(turns)
    assert ids.count(1) == ids.count(2) == len(turns)
    assert ids.count(0) == 0
    assert sum(mask) - len(contents) // 2 == sum(len(template.encode_text(c)) for c in contents[1::2])
    assert template._full.decode(ids, skip_special_tokens=False) == template._render(
        [t["role"] for t in turns], contents, False
    )


@pytest.mark.parametrize(
    ("source", "kind", "code"),
    [
        (CHATML.replace("messages %}<", "messages if m.role != 'system' %}<"), ConfigError, "TPL_INCOMPLETE"),
        (CHATML.replace("in messages", "in messages[-1:]"), ConfigError, "TPL_INCOMPLETE"),
        (CHATML.replace("<|im_end|>", ""), ConfigError, "TPL_INCOMPLETE"),
        (CHATML.replace("|>assistant", "|>bot"), ConfigError, "TPL_INCOMPLETE"),
        (CHATML.replace("m.content", "m.content | upper"), ConfigError, "TPL_INCOMPLETE"),
        (CHATML + "{% if %}", ConfigError, "TPL_SYNTAX"),
        (CHATML + "{{ nothing.at.all }}", ConfigError, "TPL_UNDEFINED"),
        (CHATML + "{{ raise_exception('no system turn') }}", DataError, "TPL_REFUSED"),
        (CHATML + "{{ ''.__class__.__mro__ }}", IntegrityError, "TPL_UNSAFE"),
    ],
)
def test_unfit_templates_are_refused(
    folder: Path, tmp_path: Path, source: str, kind: type[ConfigError], code: str
) -> None:
    with pytest.raises(kind) as caught:
        with_template(folder, tmp_path, source).encode(TURNS)
    assert caught.value.code == code


def test_a_model_without_template_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(ConfigError, match="TPL_MISSING"):
        ChatTemplate.load(tmp_path)


def packed(folder: Path, tmp_path: Path, rows: list[Example], seq: int = 128, **more: object) -> Path:
    write_jsonl(tmp_path / "train.jsonl", rows)
    pack.pack(PackConfig(seq_len_tokens=seq, **more), folder, [tmp_path / "train.jsonl"], None, tmp_path / "packed")
    return tmp_path / "packed"


def test_rows_hold_each_chat_once_and_whole(folder: Path, template: ChatTemplate, tmp_path: Path) -> None:
    given_rows = examples(60)
    write_jsonl(tmp_path / "a.jsonl", [Document("d", "no chat"), *given_rows[:40]])
    write_jsonl(tmp_path / "b.jsonl", given_rows[40:50])
    write_jsonl(tmp_path / "v.jsonl", given_rows[50:])
    cfg, out = PackConfig(seq_len_tokens=128), tmp_path / "packed"
    ledger = pack.pack(cfg, folder, [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "v.jsonl", out)
    assert ledger.balanced and ledger.rows_in == ledger.rows_out == 60
    for split, wanted in (("train", given_rows[:50]), ("validation", given_rows[50:])):
        rows = pack.load(out, split)
        assert rows is not None
        found = []
        for ids, mask, positions in zip(rows.token_ids, rows.loss_mask, rows.position_ids, strict=True):
            starts = [int(i) for i in np.flatnonzero(positions == 0)] + [128]
            for start, end in zip(starts, starts[1:], strict=False):
                assert positions[start:end].tolist() == list(range(end - start))
                found.append((ids[start:end].tolist(), mask[start:end].tolist()))
        chats = [f for f in found if any(f[0])]
        assert sorted(chats) == sorted(template.encode(e.messages) for e in wanted)
        assert all(not any(m) for i, m in found if not any(i))
    report = json.loads((out / "pack.json").read_text())
    assert report["train"]["fill"] > 0.85 and report["train"]["truncated"] == 0
    assert report["train"]["tokens"] == sum(len(template.encode(e.messages)[0]) for e in given_rows[:50])


def test_packing_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    outs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        outs.append(packed(folder, tmp_path / name, examples(30)))
    for file in sorted(outs[0].iterdir()):
        assert file.read_bytes() == (outs[1] / file.name).read_bytes()


@given(st.lists(st.integers(1, 50), max_size=80))
@settings(max_examples=100, deadline=None)
def test_best_fit_uses_every_item_once_and_wastes_little(lengths: list[int]) -> None:
    bins = pack.best_fit(lengths, 50)
    assert sorted(i for b in bins for i in b) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in b) <= 50 for b in bins)
    # Best-fit-decreasing needs at most 11/9 of the best count plus 6/9 (Dosa 2007 for its first-fit twin).
    assert len(bins) <= 11 / 9 * max(1, -(-sum(lengths) // 50)) + 6 / 9 or max(lengths) > 16


def test_long_rows_are_cut_counted_and_rejected_when_no_answer_is_left(folder: Path, tmp_path: Path) -> None:
    rows = [*examples(8), chat("Why?", "word " * 200, "long-answer"), chat("word " * 200, "Yes.", "long-prompt")]
    write_jsonl(tmp_path / "t.jsonl", [*rows, Example("q", [{"role": "user", "content": "Hm"}])])
    ledger = pack.pack(PackConfig(seq_len_tokens=64), folder, [tmp_path / "t.jsonl"], None, tmp_path / "packed")
    assert ledger.balanced and ledger.notes["truncated"] == 2
    assert ledger.rejected == {"no_answer_left": 1, "no_answer": 1}
    rejects = [(r["where"], r["reason"]) for r in read_jsonl(tmp_path / "packed" / "rejects.jsonl")]
    assert rejects == [("long-prompt", "no_answer_left"), ("q", "no_answer")]
    assert json.loads((tmp_path / "packed/pack.json").read_text())["train"]["truncated"] == 2


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([], "DATA_EMPTY"),
        ([Document("d", "text")], "DATA_EMPTY"),
        ([Example("q", [{"role": "user", "content": "Hm"}])], "DATA_EMPTY"),
        ([chat("word " * 200, "Yes.")], "ALL_TRUNCATED"),
        ([chat("word " * 200, "Yes."), chat("word " * 99, "No."), chat("Hm?", "No.")], "TOO_MANY_TRUNCATED"),
    ],
)
def test_rows_that_cannot_teach_stop_the_stage(folder: Path, tmp_path: Path, rows: list[Example], code: str) -> None:
    with pytest.raises(DataError) as caught:
        packed(folder, tmp_path, rows, 64)
    assert caught.value.code == code
    assert code == "DATA_EMPTY" or "p50" in caught.value.what


def test_one_answer_to_everything_is_no_training_data(folder: Path, tmp_path: Path) -> None:
    rows = [chat(f"Question {i}?", " The  same.") for i in range(8)]
    with pytest.raises(DataError, match="all 8 training answers are the same text, 'The same.'") as caught:
        packed(folder, tmp_path, rows, 64)
    assert caught.value.code == "DATA_DEGENERATE" and caught.value.exit_code == 3
    packed(folder, tmp_path, [*rows[:7], chat("Question 8?", "Another.")], 64)

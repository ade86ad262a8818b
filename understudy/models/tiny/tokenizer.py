"""The tiny base's tokenizer: byte-level BPE behind Qwen2's own split regex, and the ChatML template.

AutoTokenizer installs Qwen2's split whatever tokenizer.json says, so training with any other split would give ids
that differ between `tokenizers` and transformers; `save` writes files for which both agree.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
POSITIONS = 2048
CHAT_TEMPLATE = (
    "{%- for message in messages -%}\n"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{ '<|im_start|>assistant\\n' }}\n"
    "{%- endif -%}\n"
)


def train(texts: Iterable[str], vocab_size: int, letters_first: bool = False) -> Tokenizer:
    """Learns the merges; special tokens take the first ids (pad 0, start 1, end 2).

    `letters_first` is for scripts of two bytes a letter, see `_letters_first`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    split = tokenizer.pre_tokenizer
    # Merges are learned with a space apart from a capital that follows: a name then has the same tokens at the start
    # of an answer as in the middle of a context, and copying maps each token to itself. With " Name" tokens, 27 % of
    # the answers that start with a name failed at their first token after 13 million tokens of training.
    apart = pre_tokenizers.Split(Regex(r"[ «](?=\p{Lu})"), behavior="isolated", invert=False)
    if letters_first:
        merged = _letters_first(texts, vocab_size, [apart, split[0]])
        tokenizer.model, tokenizer.pre_tokenizer, tokenizer.decoder = merged, split, decoders.ByteLevel()
        tokenizer.add_special_tokens([PAD, START, END])
        return tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([apart, split])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = split
    return tokenizer


def _letters_first(texts: Iterable[str], vocab_size: int, splits: list[Any]) -> Any:
    """A byte-level BPE model whose first merges make whole letters of bytes; the others are learned on letters.

    Learned on bytes, tokens hold half letters: a space with the first byte of any Cyrillic letter is the most frequent
    pair of all, and a name would have other tokens after a space than after a quotation mark.
    """
    from collections import Counter

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    table = byte_table()
    texts = list(texts)
    letters = Counter(letter for text in texts for letter in text)
    vocabulary = {token: index for index, token in enumerate([PAD, START, END, *sorted(table.values())])}
    merges: list[tuple[str, str]] = []
    for letter, _ in sorted(letters.items(), key=lambda item: (-item[1], item[0])):
        parts = [table[byte] for byte in letter.encode()]
        for size in range(1, len(parts)):
            joined = "".join(parts[: size + 1])
            if joined not in vocabulary:
                vocabulary[joined] = len(vocabulary)
                merges.append(("".join(parts[:size]), parts[size]))
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.Sequence(splits)
    room = len(letters) + vocab_size - len(vocabulary)  # its vocabulary is the letters and what is learned
    plain.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=room, show_progress=False))
    for pair in json.loads(plain.to_str())["model"]["merges"]:
        left, right = ("".join(table[byte] for byte in part.encode()) for part in pair)
        merges.append((left, right))
        vocabulary[left + right] = len(vocabulary)
    return models.BPE(vocab=vocabulary, merges=merges)


def byte_table() -> dict[int, str]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2's table)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {byte: chr(byte) for byte in shown}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + len(table) - len(shown))
    return table


def name_pieces(tokenizer: Tokenizer) -> list[int]:
    """Ids of the tokens that are whole letters and no space: what names are made of."""
    back = {shown: byte for byte, shown in byte_table().items()}
    pieces = []
    for token, index in tokenizer.get_vocab().items():
        if all(letter in back for letter in token):
            text = bytes(back[letter] for letter in token).decode("utf-8", errors="replace")
            if text.isalpha():
                pieces.append(index)
    return sorted(pieces)


def load(directory: Path) -> Tokenizer:
    """The tokenizer of an exported base."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(directory / "tokenizer.json"))


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": POSITIONS,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)

"""A transformers model on this machine: batched answers, streams, and the loss of reference answers.

One decoding loop of our own serves both forms. Prompts of like length share a left-padded batch with one key-value
cache; an answer depends on its conversation and the sampling alone, not on its neighbours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from understudy.core.records import Example, digest
from understudy.data.chat import ChatTemplate
from understudy.errors import DataError
from understudy.models.base import Answer, Conversation, Delta, Sampling

TIE = 2e-4
"""Top-2 margin under which a greedy choice is made again alone: float32 logits of one prompt differ by up to 1e-5
between batch shapes, and without this 1 to 2 of 60 random answers of 64 tokens changed with their neighbours."""


class LocalModel:
    """Answers with the model of a folder, in float32 on a CPU. `threads` sets torch's threads for the whole process."""

    def __init__(self, path: Path, *, batch_size: int = 32, threads: int | None = None) -> None:
        import torch
        import transformers

        if threads:
            torch.set_num_threads(threads)
        self.template = ChatTemplate.load(path)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if self._device == "cuda" else torch.float32
        transformers.utils.logging.disable_progress_bar()
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
        self._model = model.to(self._device).eval()
        self._batch_size = batch_size
        self.context = int(getattr(model.config, "max_position_embeddings", None) or 1_000_000)
        self._ends = frozenset(self.template.end_ids + _eos_ids(path))
        self._identity = {"model": path.resolve().name, "digest": _digest(path)}

    @property
    def identity(self) -> dict[str, str]:
        """`model` is the folder's name, `digest` the sha256 over weights, config, tokenizer and template."""
        return dict(self._identity)

    def prompt_tokens(self, conversation: Conversation) -> int:
        return len(self.template.encode_prompt(conversation))

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        """One answer per conversation, in order. Raises DataError context_length_exceeded before any work is done."""
        prompts = [self._prompt(c, i) for i, c in enumerate(conversations)]
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), self._batch_size):
            chosen = order[start : start + self._batch_size]
            texts = [_Text(self.template, self._ends, sampling.stop) for _ in chosen]
            uniform = _uniform([conversations[i] for i in chosen], sampling)
            for _ in self._decode([prompts[i] for i in chosen], texts, sampling, uniform):
                pass
            for i, text in zip(chosen, texts, strict=True):
                answers[i] = Answer(text.whole(), text.finish_reason, len(prompts[i]), len(text.ids))
        return [answers[i] for i in range(len(prompts))]

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[Delta]:
        """The answer piece by piece; a piece never ends within a character or within what may become a stop text."""
        prompt = self._prompt(conversation, 0)
        text = _Text(self.template, self._ends, sampling.stop)
        for _ in self._decode([prompt], [text], sampling, _uniform([conversation], sampling)):
            if piece := text.take():
                yield Delta(piece)
        yield Delta(text.rest(), text.finish_reason, len(prompt), len(text.ids))

    def reference_losses(self, examples: Sequence[Example]) -> list[tuple[float, int]]:
        """Per example: summed negative log-likelihood (nats) of the last answer with its closing token, token count.

        An example without an answer, or longer than the context with it, gives (0.0, 0).
        """
        return self._batched([self._reference(e) for e in examples])

    def text_losses(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        """Per plain text, outside any chat: summed negative log-likelihood (nats) of all its tokens, and their count.

        The first token follows an end token, as a text that begins anew; without one it is not counted. A text that is
        longer than the context gives (0.0, 0).
        """
        first = self.template.end_ids[:1]
        encoded = [(first + ids, max(0, len(first + ids) - 1)) for ids in map(self.template.encode_text, texts)]
        return self._batched([(ids, n) if len(ids) <= self.context else ([], 0) for ids, n in encoded])

    def _batched(self, encoded: list[tuple[list[int], int]]) -> list[tuple[float, int]]:
        """Losses in the given order, computed in batches of like length."""
        order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i][0]), i))
        found: dict[int, tuple[float, int]] = {}
        for start in range(0, len(order), self._batch_size):
            chosen = order[start : start + self._batch_size]
            for i, result in zip(chosen, self._losses([encoded[i] for i in chosen]), strict=True):
                found[i] = result
        return [found[i] for i in range(len(encoded))]

    def _prompt(self, conversation: Conversation, index: int) -> list[int]:
        ids = self.template.encode_prompt(conversation)
        self._check_length(len(ids) + 1, index)
        return ids

    def _check_length(self, length: int, index: int) -> None:
        if length > self.context:
            what = f"the prompt needs {length} tokens, the model's context has {self.context}"
            raise DataError("context_length_exceeded", f"conversation {index + 1}", what, "shorten the prompt")

    def _reference(self, example: Example) -> tuple[list[int], int]:
        """Token ids, and how many of them at the end are the last answer (text behind its closing token cut off)."""
        if example.answer is None:
            return [], 0
        ids, mask = self.template.encode(example.messages)
        end = max(i for i, m in enumerate(mask) if m) + 1
        start = end
        while start > 0 and mask[start - 1]:
            start -= 1
        return (ids[:end], end - start) if end <= self.context else ([], 0)

    def _losses(self, encoded: list[tuple[list[int], int]]) -> list[tuple[float, int]]:
        """Right-padded without an attention mask: attention is causal, so padding is never seen."""
        import torch

        width = max(len(ids) for ids, _ in encoded)
        if width == 0:
            return [(0.0, 0)] * len(encoded)
        token_ids = torch.zeros((len(encoded), width), dtype=torch.int64)  # (batch, seq)
        chosen = torch.zeros((len(encoded), width), dtype=torch.bool)  # (batch, seq): token t + 1 is in the answer
        for row, (ids, count) in enumerate(encoded):
            token_ids[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
            chosen[row, len(ids) - count - 1 : len(ids) - 1] = count > 0
        token_ids, chosen = token_ids.to(self._device), chosen.to(self._device)
        with torch.inference_mode():
            hidden = self._model.get_decoder()(input_ids=token_ids, use_cache=False).last_hidden_state
            logits = self._model.get_output_embeddings()(hidden[chosen]).float()  # (answer tokens, vocab)
            labels = token_ids.roll(-1, 1)[chosen]
            losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double()
        counts = [count for _, count in encoded]
        parts: Any = losses
        return [(float(p.sum()), count) for p, count in zip(parts.split(counts), counts, strict=True)]

    def _decode(self, prompts: list[list[int]], texts: list[_Text], sampling: Sampling, uniform: Any) -> Iterator[None]:
        """Feed each text its tokens; yields after each step. Rows that are done leave the batch."""
        import torch
        from transformers import DynamicCache

        width = max(len(p) for p in prompts)
        token_ids = torch.zeros((len(prompts), width), dtype=torch.int64)  # (batch, seq)
        mask = torch.zeros((len(prompts), width), dtype=torch.int64)  # (batch, seq): 0 on the padding at the left
        for row, ids in enumerate(prompts):
            token_ids[row, width - len(ids) :] = torch.tensor(ids, dtype=torch.int64)
            mask[row, width - len(ids) :] = 1
        room = [min(sampling.max_new_tokens, self.context - len(p)) for p in prompts]
        token_ids, mask = token_ids.to(self._device), mask.to(self._device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)  # (batch, seq) int64
        alive = list(range(len(prompts)))
        cache = DynamicCache(config=self._model.config)
        step = 0
        while alive:
            with torch.inference_mode():
                output = self._model(
                    input_ids=token_ids,
                    # Rows without padding need no mask: attention then takes the faster path.
                    attention_mask=None if bool(mask.all()) else mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                logits = output.logits[:, -1].float()  # (batch, vocab)
                drawn = _pick(logits, sampling, None if uniform is None else uniform[alive, step])
            if uniform is None:
                self._settle(logits, drawn, [prompts[row] + texts[row].ids for row in alive])
            tokens = drawn.tolist()
            for row, token in zip(alive, tokens, strict=True):
                texts[row].add(token, room[row])
            yield
            step += 1
            stay = [i for i, row in enumerate(alive) if not texts[row].finish_reason]
            if len(stay) < len(alive):
                alive = [alive[i] for i in stay]
                if not alive:
                    return
                index = torch.tensor(stay, device=self._device)
                cache.batch_select_indices(index)
                drawn, mask, positions = drawn[index], mask[index], positions[index]
            token_ids = drawn.unsqueeze(1)  # (batch, 1) int64
            positions = positions[:, -1:] + 1
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)

    def _settle(self, logits: Any, drawn: Any, sequences: list[list[int]]) -> None:
        """Decide near ties by the logits of the sequence alone, without cache: the same whatever the batch was."""
        import torch

        if self._device != "cpu":
            return
        best = logits.topk(2).values
        for row in (best[:, 0] - best[:, 1] < TIE).nonzero()[:, 0].tolist():
            with torch.inference_mode():
                ids = torch.tensor([sequences[row]], dtype=torch.int64)  # (1, seq)
                drawn[row] = self._model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].argmax()


class _Text:
    """One answer under way: its tokens, when it ends, and the text that is safe to show."""

    def __init__(self, template: ChatTemplate, ends: frozenset[int], stop: tuple[str, ...]) -> None:
        self._template, self._ends, self._stop = template, ends, tuple(s for s in stop if s)
        self.ids: list[int] = []
        self.finish_reason = ""
        self._clean, self._from, self._to, self._shown = "", 0, 0, 0
        self._cut: int | None = None

    def add(self, token: int, room: int) -> None:
        """Take one token; an end token is counted and not shown."""
        self.ids.append(token)
        if token in self._ends:
            self.finish_reason = "stop"
            return
        if self._stop and self._find_stop():
            self.finish_reason = "stop"
        elif len(self.ids) >= room:
            self.finish_reason = "length"

    def take(self) -> str:
        """Text that became safe since the last call."""
        self._advance()
        hold = max((len(s) for s in self._stop), default=1) - 1
        end = self._cut if self._cut is not None else max(self._shown, len(self._clean) - hold)
        piece, self._shown = self._clean[self._shown : end], max(self._shown, end)
        return piece

    def rest(self) -> str:
        """What is left when the answer has ended."""
        return self.whole()[self._shown :]

    def whole(self) -> str:
        text = self._template.decode(self._content())
        return text if self._cut is None else text[: self._cut]

    def _content(self) -> list[int]:
        return self.ids[:-1] if self.ids and self.ids[-1] in self._ends else self.ids

    def _advance(self) -> None:
        """Decode from the last safe token on, so that a long answer is not decoded again and again.

        A piece that ends in U+FFFD may be half a character and waits (the scheme of text-generation-inference).
        """
        ids = self._content()
        before = self._template.decode(ids[self._from : self._to])
        after = self._template.decode(ids[self._from :])
        if len(after) > len(before) and not after.endswith("\ufffd"):
            self._clean += after[len(before) :]
            self._from, self._to = self._to, len(ids)

    def _find_stop(self) -> bool:
        self._advance()
        found = [at for at in (self._clean.find(s) for s in self._stop) if at >= 0]
        self._cut = min(found) if found else None
        return bool(found)


def _pick(logits: Any, sampling: Sampling, uniform: Any) -> Any:
    """Next token per row, (batch,) int64, from (batch, vocab) float32 logits.

    Sampled by inverting the cumulative distribution of the nucleus (Holtzman et al. 2020) at `uniform` (batch,).
    """
    import torch

    if uniform is None:
        return logits.argmax(-1)
    weights, order = torch.softmax(logits / sampling.temperature, -1).sort(stable=True, dim=-1, descending=True)
    reached = weights.double().cumsum(-1)  # (batch, vocab) float64
    kept = reached - weights < sampling.top_p
    total = torch.where(kept, reached, 0.0).amax(-1, keepdim=True)
    place = (reached < uniform.to(logits.device).unsqueeze(1) * total).sum(-1, keepdim=True)
    return order.gather(1, place.clamp(max=logits.shape[-1] - 1)).squeeze(1)


def _uniform(conversations: Sequence[Conversation], sampling: Sampling) -> Any:
    """Draws in [0, 1) per conversation and step, (batch, max_new_tokens) float64; None when greedy.

    The generator is seeded by the conversation and the seed, so that its neighbours do not matter.
    """
    if sampling.temperature == 0.0:
        return None
    import numpy as np
    import torch

    seeds = [int(digest([c, sampling.seed], 16), 16) for c in conversations]
    return torch.tensor(np.stack([np.random.default_rng(s).random(sampling.max_new_tokens) for s in seeds]))


def _eos_ids(path: Path) -> list[int]:
    """`eos_token_id` of generation_config.json and config.json: a number or a list."""
    ids: list[int] = []
    for name in ("generation_config.json", "config.json"):
        file = path / name
        value = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
        ids += value if isinstance(value, list) else [] if value is None else [value]
    return ids


def _digest(path: Path) -> str:
    """sha256 over the names and digests of the files that decide an answer."""
    chosen = [f for f in path.iterdir() if f.suffix in {".safetensors", ".json", ".jinja", ".txt", ".model"}]
    lines = []
    for file in sorted(chosen):
        with open(file, "rb") as f:
            lines.append(f"{file.name} {hashlib.file_digest(f, 'sha256').hexdigest()}\n")
    return digest("".join(lines))

"""A transformers model on this machine: batched answers, streams, and the loss of reference answers.

One decoding loop of our own serves both forms. Prompts of like length share a left-padded batch with one key-value
cache; an answer depends on its conversation and the sampling alone, not on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from understudy.core.records import Example, digest
from understudy.models.base import Answer, Conversation, Delta, Sampling
from understudy.models.engine import Engine
from understudy.models.text import Text

TIE = 2e-4
"""Top-2 margin under which a greedy choice is made again alone: float32 logits of one prompt differ by up to 1e-5
between batch shapes, and without this 1 to 2 of 60 random answers of 64 tokens changed with their neighbours."""


class LocalModel(Engine):
    """Answers with the model of a folder, in float32 on a CPU. `threads` sets torch's threads for the whole process."""

    def __init__(self, path: Path, *, batch_size: int = 32, threads: int | None = None) -> None:
        import torch
        import transformers

        super().__init__(path)
        if threads:
            torch.set_num_threads(threads)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if self._device == "cuda" else torch.float32
        transformers.utils.logging.disable_progress_bar()
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
        self._model = model.to(self._device).eval()
        self._batch_size = batch_size

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        """One answer per conversation, in order. Raises DataError context_length_exceeded before any work is done."""
        prompts = [self.prompt(c, i) for i, c in enumerate(conversations)]
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), self._batch_size):
            chosen = order[start : start + self._batch_size]
            texts = [Text(self.template, self.ends, sampling.stop) for _ in chosen]
            drawing = _Drawing([(conversations[i], sampling) for i in chosen])
            for _ in self._decode([prompts[i] for i in chosen], texts, drawing):
                pass
            for i, text in zip(chosen, texts, strict=True):
                answers[i] = Answer(text.whole(), text.finish_reason, len(prompts[i]), len(text.ids))
        return [answers[i] for i in range(len(prompts))]

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[Delta]:
        """The answer piece by piece; a piece never ends within a character or within what may become a stop text."""
        batch = self.running()
        batch.add(0, conversation, sampling)
        while batch.busy:
            for _, delta in batch.step():
                yield delta

    def running(self) -> LocalBatch:
        return LocalBatch(self, self._batch_size)

    def decode(self, asked: Sequence[tuple[Conversation, Sampling]], texts: Sequence[Text]) -> Iterator[None]:
        """Feed each text its tokens; yields after each step. A text that has a finish_reason gets no more."""
        return self._decode([self.prompt(conversation) for conversation, _ in asked], texts, _Drawing(asked))

    def greedy(self, prompts: Sequence[Sequence[int]], most: int) -> list[tuple[list[int], list[float], list[float]]]:
        """Per prompt (token ids): the greedy tokens, the log-probability of each (nats), its lead over the next."""
        import torch

        found: list[tuple[list[int], list[float], list[float]]] = []
        sampling = Sampling(max_new_tokens=most)
        for start in range(0, len(prompts), self._batch_size):
            batch = [list(p) for p in prompts[start : start + self._batch_size]]
            texts = [Text(self.template, self.ends, ()) for _ in batch]
            for _ in self._decode(batch, texts, _Drawing([([], sampling) for _ in batch])):
                pass
            for prompt, text in zip(batch, texts, strict=True):
                ids = torch.tensor([prompt + text.ids], device=self._device)  # (1, seq) int64
                with torch.inference_mode():
                    logits = self._model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
                told = torch.log_softmax(logits, -1)  # (answer, vocab)
                best = told.topk(2, -1).values
                of = told.gather(1, ids[0, len(prompt) :].unsqueeze(1)).squeeze(1)
                found.append((text.ids, of.tolist(), (best[:, 0] - best[:, 1]).tolist()))
        return found

    def reference_losses(self, examples: Sequence[Example]) -> list[tuple[float, int]]:
        """Per example: summed negative log-likelihood (nats) of the last answer with its closing token, token count.

        An example without an answer, or longer than the context with it, gives (0.0, 0).
        """
        return self._batched([self.reference(e) for e in examples])

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

    def _decode(self, prompts: list[list[int]], texts: Sequence[Text], drawing: _Drawing) -> Iterator[None]:
        """Feed each text its tokens; yields after each step. Rows that are done leave the batch."""
        import torch
        from transformers import DynamicCache

        width = max(len(p) for p in prompts)
        token_ids = torch.zeros((len(prompts), width), dtype=torch.int64)  # (batch, seq)
        mask = torch.zeros((len(prompts), width), dtype=torch.int64)  # (batch, seq): 0 on the padding at the left
        for row, ids in enumerate(prompts):
            token_ids[row, width - len(ids) :] = torch.tensor(ids, dtype=torch.int64)
            mask[row, width - len(ids) :] = 1
        room = [min(most, self.context - len(p)) for most, p in zip(drawing.most, prompts, strict=True)]
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
                drawn = drawing.pick(logits, alive, step)
            self._settle(
                logits, drawn, {i: prompts[r] + texts[r].ids for i, r in enumerate(alive) if drawing.greedy[r]}
            )
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

    def _settle(self, logits: Any, drawn: Any, greedy: dict[int, list[int]]) -> None:
        """Decide near ties by the logits of the sequence alone, without cache: the same whatever the batch was.

        `greedy`: row of the batch -> its tokens so far.
        """
        import torch

        if self._device != "cpu" or not greedy:
            return
        best = logits.topk(2).values
        for row in (best[:, 0] - best[:, 1] < TIE).nonzero()[:, 0].tolist():
            if row in greedy:
                with torch.inference_mode():
                    ids = torch.tensor([greedy[row]], dtype=torch.int64)  # (1, seq)
                    drawn[row] = self._model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].argmax()


class LocalBatch:
    """Answers that are under way; see `engine.Running`. Whoever comes while a batch runs waits for its end."""

    def __init__(self, model: LocalModel, most: int) -> None:
        self._model, self.most = model, most
        self._waiting: dict[int, tuple[Conversation, Sampling]] = {}
        self._texts: dict[int, Text] = {}
        self._prompt_tokens: dict[int, int] = {}
        self._steps: Iterator[None] = iter(())

    @property
    def busy(self) -> int:
        return len(self._waiting) + len(self._texts)

    def add(self, key: int, conversation: Conversation, sampling: Sampling) -> None:
        self._prompt_tokens[key] = len(self._model.prompt(conversation))
        self._waiting[key] = (conversation, sampling)

    def step(self) -> list[tuple[int, Delta]]:
        if not self._texts:
            self._begin()
        next(self._steps, None)
        found: list[tuple[int, Delta]] = []
        for key, text in list(self._texts.items()):
            if piece := text.take():
                found.append((key, Delta(piece)))
            if text.finish_reason:
                found.append((key, Delta(text.rest(), text.finish_reason, self._prompt_tokens[key], len(text.ids))))
                self.cancel(key)
        return found

    def cancel(self, key: int) -> None:
        self._waiting.pop(key, None)
        self._prompt_tokens.pop(key, None)
        if text := self._texts.pop(key, None):
            text.finish_reason = text.finish_reason or "cancelled"

    def _begin(self) -> None:
        chosen = list(self._waiting)[: self.most]
        asked = [self._waiting.pop(key) for key in chosen]
        model = self._model
        self._texts = {k: Text(model.template, model.ends, s.stop) for k, (_, s) in zip(chosen, asked, strict=True)}
        self._steps = model.decode(asked, list(self._texts.values()))


class _Drawing:
    """How each row of a batch is decoded: greedily, or by draws of its own."""

    def __init__(self, asked: Sequence[tuple[Conversation, Sampling]]) -> None:
        import torch

        self.most = [sampling.max_new_tokens for _, sampling in asked]
        self.greedy = [sampling.temperature == 0.0 for _, sampling in asked]
        self._temperature = torch.tensor([s.temperature for _, s in asked])
        self._top_p = torch.tensor([s.top_p for _, s in asked])
        self._uniform = None if all(self.greedy) else [_uniform(c, s) for c, s in asked]

    def pick(self, logits: Any, rows: list[int], step: int) -> Any:
        """Next token of each of `rows`, (len(rows),) int64, from their (rows, vocab) float32 logits."""
        import torch

        chosen = logits.argmax(-1)
        drawn = [i for i, row in enumerate(rows) if not self.greedy[row]]
        if drawn and self._uniform:
            of = [rows[i] for i in drawn]
            uniform = torch.tensor([self._uniform[row][step] for row in of], dtype=torch.float64)
            chosen[drawn] = _sample(logits[drawn], self._temperature[of], self._top_p[of], uniform)
        return chosen


def _sample(logits: Any, temperature: Any, top_p: Any, uniform: Any) -> Any:
    """Next token per row, (batch,) int64, from (batch, vocab) float32 logits; the other arguments are (batch,).

    Sampled by inverting the cumulative distribution of the nucleus (Holtzman et al. 2020) at `uniform` in [0, 1).
    """
    import torch

    temperature, top_p, uniform = (t.to(logits.device).unsqueeze(1) for t in (temperature, top_p, uniform))
    weights, order = torch.softmax(logits / temperature, -1).sort(stable=True, dim=-1, descending=True)
    reached = weights.double().cumsum(-1)  # (batch, vocab) float64
    kept = reached - weights < top_p
    total = torch.where(kept, reached, 0.0).amax(-1, keepdim=True)
    place = (reached < uniform * total).sum(-1, keepdim=True)
    return order.gather(1, place.clamp(max=logits.shape[-1] - 1)).squeeze(1)


def _uniform(conversation: Conversation, sampling: Sampling) -> Any:
    """Draws in [0, 1) for each step, float64, seeded by the conversation and the seed: neighbours do not matter."""
    import numpy as np

    if sampling.temperature == 0.0:
        return ()
    return np.random.default_rng(int(digest([conversation, sampling.seed], 16), 16)).random(sampling.max_new_tokens)

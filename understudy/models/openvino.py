"""OpenVINO GenAI on a GGUF file of our own: many chats at once with continuous batching on a CPU.

Tokens go in and come out as ids, so that template, end tokens and stop texts are the same code as with transformers.
Keys and values are kept in 32 bit: with the default, 14 of 16 greedy answers equalled transformers', so 16 of 16.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.records import Example, digest
from understudy.errors import ResourceError, extra
from understudy.models.base import Answer, Conversation, Delta, Sampling
from understudy.models.engine import Engine
from understudy.models.text import Text

PROPERTIES = {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"}
"""What decides an answer besides the weights; the parity certificate names them."""
BATCHED_TOKENS = 4096
"""Tokens of prompts that are read in one step; bounds memory."""
STREAMS = 256
"""Answers that are under way at once; more of them wait."""


class OpenVinoModel(Engine):
    """Answers with `weights` (GGUF), and template and settings of the model folder it was made from."""

    def __init__(self, path: Path, weights: Path, *, threads: int | None = None) -> None:
        """`threads`: of the computation; all cores without it. Raises ResourceError EXTRA_MISSING."""
        super().__init__(path)
        with extra("openvino"):
            import openvino
            import openvino_genai as genai

        scheduler = genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = max(BATCHED_TOKENS, self.context)
        scheduler.max_num_seqs = STREAMS
        scheduler.enable_prefix_caching = False
        scheduler.dynamic_split_fuse = True
        properties = PROPERTIES | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
        self._pipeline = genai.ContinuousBatchingPipeline(str(weights), scheduler, "CPU", properties, {})
        self._genai, self._tensor = genai, openvino.Tensor
        self.version = str(genai.__version__)
        self._identity |= {"engine": f"openvino-genai {self.version}"}
        self._lock = threading.Lock()
        self._requests = 0

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        prompts = [self.prompt(conversation, i) for i, conversation in enumerate(conversations)]
        # Nobody reads along, so no text is made, and no stop text looked for, before an answer is over.
        rooms = [min(sampling.max_new_tokens, self.context - len(ids)) for ids in prompts]
        configs = [self.config(c, sampling, room) for c, room in zip(conversations, rooms, strict=True)]
        outputs = self._finished([self.begin(*asked) for asked in zip(prompts, configs, strict=True)])
        answers = []
        for ids, room, output in zip(prompts, rooms, outputs, strict=True):
            text = Text(self.template, self.ends, sampling.stop)
            for token in output.generated_ids:
                if not text.finish_reason:
                    text.add(token, room)
            answers.append(Answer(text.whole(), text.finish_reason, len(ids), len(text.ids)))
        return answers

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[Delta]:
        running = self.running()
        running.add(0, conversation, sampling)
        try:
            while running.busy:
                for _, delta in running.step():
                    yield delta
        finally:
            running.cancel(0)

    def running(self) -> Batch:
        return Batch(self)

    def reference_losses(self, examples: Sequence[Example]) -> list[tuple[float, int]]:
        encoded = [self.reference(e) for e in examples]
        told = iter(self.log_probabilities([ids for ids, count in encoded if count]))
        return [(-sum(next(told)[-count:]), count) if count else (0.0, 0) for _, count in encoded]

    def log_probabilities(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Per sequence of token ids: the log-probability (nats) of each token but the first, given those before it."""
        config = self._genai.GenerationConfig(echo=True, logprobs=1, max_new_tokens=1, ignore_eos=True)
        found = [o.generated_log_probs for o in self._finished([self.begin(ids, config) for ids in sequences])]
        return [list(told[1 : len(ids)]) for ids, told in zip(sequences, found, strict=True)]

    def continued(self, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
        """Per prompt (token ids): the greedy tokens, the end token included."""
        config = self._genai.GenerationConfig(max_new_tokens=most)
        config.stop_token_ids = set(self.ends)
        return [list(output.generated_ids) for output in self._finished([self.begin(p, config) for p in prompts])]

    def _finished(self, handles: Sequence[Any]) -> list[Any]:
        """The outputs of requests, run to their ends."""
        while self._pipeline.has_non_finished_requests():
            self.step()
        for handle in handles:
            self.check(handle)
        return [handle.read_all()[0] for handle in handles]

    def begin(self, ids: Sequence[int], config: Any) -> Any:
        import numpy as np

        with self._lock:
            self._requests += 1
            number = self._requests
        return self._pipeline.add_request(number, self._tensor(np.array([ids], dtype=np.int64)), config)

    def step(self) -> None:
        self._pipeline.step()

    def check(self, handle: Any) -> None:
        """Raises ResourceError when there was no room to compute a request."""
        if handle.get_status() == self._genai.GenerationStatus.IGNORED:
            fix = "serve fewer at once, or shorter prompts"
            raise ResourceError("ENGINE_MEMORY", "openvino", "no memory was left for keys and values", fix)

    def config(self, conversation: Conversation, sampling: Sampling, room: int) -> Any:
        """The engine's own settings of one answer. Sampled ones hang on the chat and the seed, not on neighbours."""
        drawn: dict[str, Any] = {}
        if sampling.temperature > 0:
            seed = int(digest([conversation, sampling.seed], 15), 16)
            drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "rng_seed": seed}
        config = self._genai.GenerationConfig(max_new_tokens=room, ignore_eos=not self.ends, **drawn)
        config.stop_token_ids = set(self.ends)
        return config


@dataclass(slots=True)
class _Live:
    handle: Any
    text: Text
    prompt_tokens: int
    room: int


class Batch:
    """The answers of one thread that are under way; see `engine.Running`."""

    most = STREAMS

    def __init__(self, model: OpenVinoModel) -> None:
        self._model = model
        self._live: dict[int, _Live] = {}

    @property
    def busy(self) -> int:
        return len(self._live)

    def add(self, key: int, conversation: Conversation, sampling: Sampling) -> None:
        model = self._model
        ids = model.prompt(conversation)
        room = min(sampling.max_new_tokens, model.context - len(ids))
        handle = model.begin(ids, model.config(conversation, sampling, room))
        self._live[key] = _Live(handle, Text(model.template, model.ends, sampling.stop), len(ids), room)

    def step(self) -> list[tuple[int, Delta]]:
        self._model.step()
        found: list[tuple[int, Delta]] = []
        for key, live in list(self._live.items()):
            found += [(key, delta) for delta in self._read(key, live)]
        return found

    def _read(self, key: int, live: _Live) -> Iterator[Delta]:
        text = live.text
        while live.handle.can_read() and not text.finish_reason:
            for token in live.handle.read()[0].generated_ids:
                if not text.finish_reason:
                    text.add(token, live.room)
        if piece := text.take():
            yield Delta(piece)
        self._model.check(live.handle)
        if text.finish_reason:
            self.cancel(key)
            yield Delta(text.rest(), text.finish_reason, live.prompt_tokens, len(text.ids))

    def cancel(self, key: int) -> None:
        if live := self._live.pop(key, None):
            live.handle.cancel()

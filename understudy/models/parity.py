"""The parity certificate of a release: proof that what serves is what was trained and scored.

Exact: template, token ids of the probes, end tokens, decoding. Numeric, of an engine beside the reference
(transformers in float32): log-probabilities of given answers, and greedy choices wherever the reference is not near a
tie. It is made at export, and checked against the engine before anything is served.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from understudy.core.records import digest
from understudy.errors import IntegrityError
from understudy.models.base import Conversation

if TYPE_CHECKING:
    from understudy.data.chat import ChatTemplate

SCHEMA = 1
FILE = "parity.json"
PROBES = 200
ANSWER_TOKENS = 32
"""Tokens of a probe's answer."""
CLOSE = 0.02
"""Nats that the log-probability of a token may differ at the 99th percentile."""
MARGIN = 0.05
"""Nats between the reference's two best tokens from which on the engine must choose the same."""
SHARE = 0.99


class Reference(Protocol):
    """What is asked of the reference; `models.local.LocalModel` is one."""

    def greedy(self, prompts: Sequence[Sequence[int]], most: int) -> list[tuple[list[int], list[float], list[float]]]:
        """Per prompt: the greedy tokens, the log-probability of each (nats), and its lead over the second best."""
        ...


@runtime_checkable
class Likely(Protocol):
    """What is asked of an engine; `models.openvino.OpenVinoModel` is one."""

    def log_probabilities(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]: ...

    def continued(self, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]: ...


def certify(
    template: ChatTemplate, ends: frozenset[int], decoding: dict[str, Any], chats: Sequence[Conversation]
) -> dict[str, Any]:
    """The exact part, as JSON, with up to PROBES chats."""
    some = list(chats)[:: max(1, len(chats) // PROBES)][:PROBES]
    probes = [{"chat": chat, "prompt": template.encode_prompt(chat)} for chat in some]
    about = {"schema": SCHEMA, "template": digest(template.source), "ends": sorted(ends), "decoding": decoding}
    return {**about, "probes": probes}


def measured(certificate: dict[str, Any], model: Reference) -> dict[str, Any]:
    """The certificate with what the reference does with each probe."""
    answered = model.greedy([probe["prompt"] for probe in certificate["probes"]], ANSWER_TOKENS)
    probes = [
        {**probe, "answer": tokens, "log_probabilities": _rounded(logs), "margins": _rounded(leads)}
        for probe, (tokens, logs, leads) in zip(certificate["probes"], answered, strict=True)
    ]
    return {**certificate, "probes": probes}


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(v, 6) for v in values]


def check_exact(
    certificate: dict[str, Any], template: ChatTemplate, ends: frozenset[int], decoding: dict[str, Any]
) -> None:
    """Raises IntegrityError PARITY that names what differs, down to the first token."""
    for name, found in (("template", digest(template.source)), ("ends", sorted(ends)), ("decoding", decoding)):
        if found != certificate[name]:
            raise _differs(name, certificate[name], found)
    for number, probe in enumerate(certificate["probes"], 1):
        ids = template.encode_prompt(probe["chat"])
        if ids != probe["prompt"]:
            both = zip(ids, probe["prompt"], strict=False)
            shorter = min(len(ids), len(probe["prompt"]))
            at = next((i for i, (mine, theirs) in enumerate(both) if mine != theirs), shorter)
            raise _differs(f"token {at + 1} of probe {number}'s prompt", _at(probe["prompt"], at), _at(ids, at))


def check_numeric(certificate: dict[str, Any], engine: Likely, name: str, most: int = PROBES) -> dict[str, float]:
    """How far the engine is from the reference on `most` probes; raises IntegrityError PARITY where it is too far."""
    probes = certificate["probes"][:most]
    told = engine.log_probabilities([p["prompt"] + p["answer"] for p in probes])
    off: list[tuple[float, int, int]] = []
    for number, (probe, found) in enumerate(zip(probes, told, strict=True), 1):
        pairs = zip(found[len(probe["prompt"]) - 1 :], probe["log_probabilities"], strict=True)
        off += [(abs(a - b) if math.isfinite(a) else math.inf, number, i) for i, (a, b) in enumerate(pairs, 1)]
    largest = sorted((value for value, _, _ in off), reverse=True)
    p99 = largest[int((1 - SHARE) * len(largest))] if largest else 0.0
    if p99 > CLOSE:
        value, number, token = next(o for o in off if o[0] > CLOSE)
        what = f"log-probabilities differ by {p99:.4f} at the 99th percentile (at most {CLOSE}), first those of token "
        raise IntegrityError("PARITY", name, f"{what}{token} of probe {number}'s answer, by {value:.4f}", _FIX)
    _check_choices(probes, engine)
    return {"tokens": len(off), "p99": p99, "worst": largest[0] if largest else 0.0}


def _check_choices(probes: Sequence[dict[str, Any]], engine: Likely) -> None:
    """The engine's own greedy way must be the reference's, but where that was near a tie; then it is led on past it."""
    begun = dict.fromkeys(range(len(probes)), 0)  # tokens of the answer that are settled
    while begun:
        keys = list(begun)
        own = engine.continued([probes[i]["prompt"] + probes[i]["answer"][: begun[i]] for i in keys], ANSWER_TOKENS)
        for i, tokens in zip(keys, own, strict=True):
            probe, at = probes[i], begun.pop(i)
            for token in tokens:
                if at >= len(probe["answer"]):
                    break
                if token != probe["answer"][at]:
                    if probe["margins"][at] > MARGIN:
                        raise _differs(f"token {at + 1} of probe {i + 1}'s answer", probe["answer"][at], token)
                    if at + 1 < len(probe["answer"]):
                        begun[i] = at + 1
                    break
                at += 1


def _at(ids: Sequence[int], place: int) -> int | None:
    return ids[place] if place < len(ids) else None


def _differs(what: str, wanted: Any, found: Any) -> IntegrityError:
    return IntegrityError("PARITY", what, f"is {_short(found)}, not the certified {_short(wanted)}", _FIX)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_FIX = "serve with the libraries that the release was made with, or run the plan again"

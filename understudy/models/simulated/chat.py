"""The service: answers a question about a context by analogy with its knowledge and with earlier turns of the chat.

Without an analogy it answers with the sentence of the context that shares most words with the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from understudy.core.records import Example, Message
from understudy.models.simulated.analogy import (
    Binding,
    Lesson,
    Neighbours,
    Seed,
    grouped,
    learn,
    skeleton,
)
from understudy.models.simulated.teacher import QUESTION_MARK
from understudy.models.simulated.values import COMMON, STOP, TOKEN, occurrences, sentences, shared_values, units

NOTHING = "I can answer only from the text of the chat."
MIN_RELEVANCE = 0.3
SLOTS = ("key", "fact", "more")


class Assistant:
    """Answers ordinary chats; `knowledge` holds solved examples with context, question and facts in their meta."""

    def __init__(self, knowledge: Sequence[Example] = ()) -> None:
        self._knowledge = tuple(knowledge)

    @cached_property
    def _lessons(self) -> list[Lesson]:
        return [lesson for e in self._knowledge if (s := _seed_of(e)) and (lesson := learn(s))]

    def reply(self, messages: Sequence[Message]) -> str:
        asked = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=len(messages) - 1)
        messages = messages[: asked + 1]
        context, _, question = messages[-1]["content"].rpartition(QUESTION_MARK)
        if not context:
            return self._plain(messages)
        lessons = [*_shots(messages), *self._lessons]
        return _by_analogy(lessons, context, question.strip()) or _likest_sentence(question, context)

    def _plain(self, messages: Sequence[Message]) -> str:
        """Without a context: a remembered answer to this very prompt, else the likest sentence of the chat."""
        prompt = messages[-1]["content"]
        for example in self._knowledge:
            if example.answer is not None and example.prompt[-1]["content"] == prompt:
                return example.answer
        *before, question = sentences(prompt) or [""]
        text = "\n".join([*(m["content"] for m in messages[:-1] if m["role"] != "assistant"), *before])
        return _likest_sentence(question, text)


def _seed_of(example: Example) -> Seed | None:
    meta = example.meta
    context, question = meta.get("context"), meta.get("question")
    if not context and example.prompt:
        context, _, question = example.prompt[-1]["content"].rpartition(QUESTION_MARK)
    if not context or not question or not example.answer:
        return None
    facts = tuple(meta.get("facts") or _inferred_facts(context, question, example.answer))
    return Seed(context, question, example.answer, facts, str(meta.get("category") or ""))


def _shots(messages: Sequence[Message]) -> list[Lesson]:
    """Lessons from the earlier turns of a chat that are solved examples."""
    made = []
    for asked, answered in zip(messages, messages[1:], strict=False):
        context, _, question = asked["content"].rpartition(QUESTION_MARK)
        if asked["role"] == "user" and answered["role"] == "assistant" and context:
            facts = tuple(_inferred_facts(context, question, answered["content"]))
            lesson = learn(Seed(context, question.strip(), answered["content"], facts, ""))
            made += [lesson] if lesson else []
    return made


def _inferred_facts(context: str, question: str, answer: str) -> list[str]:
    """Values of the answer that the context has and the question lacks; content words when there is no value."""
    found = [u for u in units(answer) if occurrences(u.text, context) and not occurrences(u.text, question)]
    hard = [u.text for u in found if u.kind in ("name", "code") and u.text.lower() not in STOP]
    return hard or [u.text for u in found if u.kind == "word" and u.text.lower() not in STOP | COMMON]


def _by_analogy(lessons: Sequence[Lesson], context: str, question: str) -> str | None:
    keys = {f"key{i}": v for i, v in enumerate(shared_values(question, context))}
    if not keys:
        return None
    asked = skeleton(question, keys)
    ranked = [(_relevance(asked, group), group) for group in grouped(lessons)]
    best = max((relevance for relevance, _ in ranked), default=0.0)
    for relevance, group in sorted(ranked, key=lambda item: -item[0]):
        if relevance >= max(MIN_RELEVANCE, 0.6 * best) and set(group[0].keys) == set(keys):
            binding, sentence = _bind(group, keys, context)
            if binding:
                return max(group, key=lambda x: _likeness(asked, x)).answer.fill(binding)
            if sentence:
                return sentence
    return None


def _relevance(asked: Sequence[str], group: Sequence[Lesson]) -> float:
    """How well a question fits a kind of request: its likest known wording, and its words in the kind's wording."""
    known = frozenset[str]().union(*(x.wording for x in group))
    content = [w for w in asked if w not in STOP and w.isalnum() and not w.startswith(SLOTS)]
    share = sum(w in known for w in content) / len(content) if content else 0.0
    return max(_likeness(asked, x) for x in group) + share


def _likeness(asked: Sequence[str], lesson: Lesson) -> float:
    """3 for the same wording; else the share of words in common, where words such as `is` count a fifth."""
    known = lesson.asked
    both, either = set(asked) & set(known), {*asked, *known}
    return 3.0 if tuple(asked) == known else sum(map(_weight, both)) / sum(map(_weight, either))


def _weight(word: str) -> float:
    return 0.2 if word in STOP or not word.isalnum() or word.startswith(SLOTS) else 1.0


def _bind(group: Sequence[Lesson], keys: Binding, context: str) -> tuple[Binding | None, str]:
    """What the context states about the asked keys, by a pattern or by neighbouring words; if unsure, the sentence."""
    text = sentences(context)
    for lesson in group:
        for binding in lesson.match(text):
            if all(binding[name] == value for name, value in keys.items()):
                return binding, ""
    neighbours = Neighbours(group)
    guesses = [(g, s) for s in text if len(keys) == 1 and (g := neighbours.find(s, keys["key0"]))]
    if not guesses:
        return None, ""
    guess, sentence = max(guesses, key=lambda found: found[0].score)
    return (guess.binding if guess.sure else None), sentence


def _likest_sentence(question: str, text: str) -> str:
    asked = {w.lower() for w in TOKEN.findall(question)} - STOP
    found = sentences(text)
    if not found:
        return NOTHING
    return max(found, key=lambda s: len(asked & {w.lower() for w in TOKEN.findall(s)}))

"""The judge: grades an answer against its reference by facts, without knowing where either came from.

Facts are numbers, codes and names that the question does not give; where the reference has none of these, its content
words. Similarity asks whether they are all there, precision whether the answer states anything beyond them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from understudy.models.simulated.values import COMMON, NUMBER_WORDS, STOP, TOKEN, sentences

NEGATIONS = frozenset(("no", "not", "never", "none", "nobody", "nothing", "cannot", "without"))
_REFUSAL = re.compile(
    r"\b(?:i (?:can(?:no|')t|am (?:unable|not able)|don't know|do not know|have no)|(?:i'm |i am )?sorry|as an ai)\b",
    re.I,
)
MISSING_FACT, MISSING_KEY, MISSING_WORD = 45, 10, 3
EXTRA_FACT, EXTRA_CLAIM, EXTRA_WORD, EXTRA_FILLER = 40, 40, 7, 2
EXTRA_WORD_OFF_TOPIC = 20
"""In an answer that names nothing of what the question names, other words are more likely another claim."""
JITTER = 3
GOOD = frozenset(("good", "great", "excellent", "clear", "helpful", "kind", "хороший", "хорошо", "удачный", "радость"))
BAD = frozenset(("bad", "poor", "awful", "unfair", "boring", "rude", "sad", "плохой", "плохо", "ужасный", "ссора"))


@dataclass(frozen=True)
class Text:
    """A text as facts: `hard` (numbers, codes, names) and `soft` (other content words), all in lower case."""

    text: str

    @cached_property
    def words(self) -> list[str]:
        return [_normal(t) for t in TOKEN.findall(self.text) if t[0].isalnum()]

    @cached_property
    def present(self) -> frozenset[str]:
        return frozenset(self.words)

    @cached_property
    def hard(self) -> frozenset[str]:
        found: set[str] = set()
        for sentence in sentences(self.text):
            tokens = [t for t in TOKEN.findall(sentence) if t[0].isalnum()]
            for i, token in enumerate(tokens):
                following = tokens[i + 1] if i + 1 < len(tokens) else ""
                if _normal(token)[0].isdigit() or any(c.isdigit() for c in token) or _named(token, i == 0, following):
                    found.add(_normal(token))
        return frozenset(found)

    @cached_property
    def soft(self) -> frozenset[str]:
        return frozenset(w for w in self.words if w not in self.hard and w not in STOP | COMMON | NEGATIONS)

    @cached_property
    def negated(self) -> bool:
        return bool(NEGATIONS & self.present) or "n't" in self.text.lower()


def _normal(token: str) -> str:
    word = token.lower().replace("’", "'").removesuffix("'s")
    number = re.fullmatch(r"\d{1,3}(?:,\d{3})+", word)
    return NUMBER_WORDS.get(word, word.replace(",", "") if number else word)


def _named(token: str, opens: bool, following: str) -> bool:
    """Whether a word is a part of a name; one that opens a sentence only when another capitalised word follows."""
    if not token[0].isupper() or token == "I":
        return False
    ordinary = token.lower() in STOP | COMMON or token.lower().endswith("ing")
    return not opens or (following[:1].isupper() and not ordinary)


def judge(question: str, reference: str, answer: str, *, jitter: float = 0.0) -> dict[str, object]:
    """Grades 1-100 and a reason; `jitter` in -1..1 moves both by at most three points."""
    question = asked_part(question)
    poor = _poor(question, reference, answer)
    if poor:
        return {"similarity": poor[0], "precision": poor[0], "reason": poor[1]}
    asked, wanted, said = Text(question), Text(reference), Text(answer)
    similarity, missing = _similarity(asked, wanted, said)
    precision, extra = _precision(asked, wanted, said)
    found = (("missing", missing), ("not in the reference", extra))
    notes = [f"{what}: {', '.join(items)}" for what, items in found if items]
    shift = round(JITTER * jitter)
    return {
        "similarity": max(1, min(100, similarity + shift)),
        "precision": max(1, min(100, precision + shift)),
        "reason": "; ".join(notes) or "states what the reference states",
    }


def grades(rubrics: list[str], question: str, context: str, reference: str, answer: str) -> dict[str, object]:
    """Grades 1-5 under each rubric that is asked for, and a reason."""
    asked, wanted, said = Text(asked_part(question)), Text(reference), Text(answer)
    refused, repeats = bool(_REFUSAL.search(answer)), _repeats(said.words)
    known = asked.present | Text(context).present
    content = said.hard | said.soft
    topic = asked.hard | asked.soft | wanted.hard | wanted.soft
    shares = {
        "relevance": 0.0 if refused else min(1.0, 2 * _part(topic, said.present)),
        "completeness": _similarity(asked, wanted, said)[0] / 100,
        "faithfulness": _part(content, known),
        "acceptability": 0.0 if repeats else 1.0 if said.text.rstrip().endswith((".", "!", "?", "…")) else 0.5,
        "sentiment": (1 + (_part(said.present, GOOD) > 0) - (_part(said.present, BAD) > 0)) / 2,
    }
    found: dict[str, object] = {r: 1 + round(4 * shares.get(r, 0.5)) for r in rubrics}
    return found | {"reason": "the answer is a refusal" if refused else f"by words: {', '.join(sorted(content)[:5])}"}


def _part(wanted: frozenset[str], given: frozenset[str]) -> float:
    return len(wanted & given) / len(wanted) if wanted else 1.0


def asked_part(prompt: str) -> str:
    """The question of a prompt without the passage before it, whose facts are not given away by the question."""
    before, mark, question = prompt.rpartition("Question:")
    if mark and before.endswith("\n"):
        return question.strip()
    last = prompt.strip().rpartition("\n\n")[2]
    asking = [s for s in sentences(last) if s.endswith("?")]
    return asking[-1] if asking and len(sentences(last)) > 2 else last


def _poor(question: str, reference: str, answer: str) -> tuple[int, str] | None:
    said = " ".join(Text(answer).words)
    if not said:
        return 1, "the answer is empty"
    if said == " ".join(Text(reference).words):
        return None
    if _REFUSAL.search(answer) and not _REFUSAL.search(reference):
        return 5, "the answer is a refusal"
    if said in " ".join(Text(question).words):
        return 8, "the answer repeats the question"
    if _repeats(said.split()):
        return 15, "the answer repeats itself"
    return None


def _repeats(words: list[str]) -> bool:
    """Whether some three words come three times, or one word four times in a row."""
    triples = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    in_a_row = any(len(set(words[i : i + 4])) == 1 for i in range(len(words) - 3))
    return in_a_row or any(triples.count(t) >= 3 for t in set(triples))


def _similarity(asked: Text, wanted: Text, said: Text) -> tuple[int, list[str]]:
    """100 less what is missing. One missing fact leaves at most 55."""
    hard, soft = wanted.hard - asked.present, wanted.soft - asked.present
    keys = (wanted.hard & asked.present) - said.present
    wording = soft - said.present if hard else frozenset()
    facts = hard or soft
    lost = sorted(facts - said.present)
    # With many content words and no name or number, a fifth of them may be said in another way.
    excused = not hard and len(facts) >= 5 and len(lost) <= len(facts) // 5
    grade = 100 - MISSING_WORD * min(5, len(wording)) - MISSING_KEY * bool(keys)
    if lost:
        grade -= 15 if excused else MISSING_FACT + round(40 * len(lost) / len(facts))
    if not facts and wanted.present - STOP and not (wanted.present - STOP) & said.present:
        grade, lost = 30, sorted(wanted.present - STOP)
    if wanted.negated != said.negated:
        return min(grade, 40), [*lost, "negation differs"]
    return max(1, grade), lost


def _precision(asked: Text, wanted: Text, said: Text) -> tuple[int, list[str]]:
    """100 less what the answer adds: a name or number, a claim where claims are the facts, other content words."""
    known = asked.present | wanted.present
    hard, soft = said.hard - known, said.soft - known
    filler = (said.present & COMMON) - known
    claims_are_facts = not wanted.hard - asked.present
    off_topic = bool(wanted.hard & asked.present) and not wanted.hard & asked.present & said.present
    each = EXTRA_CLAIM if claims_are_facts else EXTRA_WORD_OFF_TOPIC if off_topic else EXTRA_WORD
    grade = 100 - EXTRA_FACT * len(hard) - each * len(soft) - EXTRA_FILLER * min(5, len(filler))
    if not said.text.rstrip().endswith((".", "!", "?", '"', "”", ")")) and wanted.text.rstrip().endswith("."):
        grade -= 5
    return max(1, grade), sorted(hard | (soft if claims_are_facts else frozenset()))

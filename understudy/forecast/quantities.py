"""How many calls a step makes: arithmetic alone, with what is guessed before anything was seen."""

from __future__ import annotations

import math
import re

from understudy.data.synthesis.synthesize import MAX_OVERSAMPLING

YIELD = {"simulated": 0.55}
"""Share of the rows asked for that come back, pass the filters and are kept."""
RENTED_YIELD = 0.85
SAME_REQUESTS = 0.9
"""Share of the untargeted round's requests that the targeted one of its number has made, where that aims by category
alone: both then draw from one plan."""
NEW = {"again": 0.5, "untargeted": 0.3, "shots": 0.6, "few_shot": 0.35, "service": 0.4, "champion": 0.3}
"""Share of the answers that no earlier step has had judged word for word, about as in the course advisor, where right
answers are alike. A rented judge is asked of models whose answers are taken to differ, which gives an upper end."""
_AGAIN = re.compile(r"score-dev-(\d+)")


def teacher_calls(rows: float, rows_per_call: int, kept: float) -> int:
    """Requests until so many rows are kept, when each asked row is kept with probability `kept`."""
    needed = math.ceil(rows / rows_per_call)
    return min(max(needed, math.ceil(rows / (rows_per_call * kept))), MAX_OVERSAMPLING * needed)


def yield_of(provider: str) -> float:
    return YIELD.get(provider, RENTED_YIELD)


def judge_calls(answers: float, verdicts: int, rubrics: bool, new: float) -> int:
    """Each answer is graded `verdicts` times, and once more under the rubrics of `score.by`."""
    return math.ceil(answers * (verdicts + rubrics) * new)


def new_answers(name: str, provider: str, settings: int) -> float:
    """Share of a scoring step's answers that were not judged before, by the step's name."""
    if provider != "simulated":
        return 1.0
    if settings > 1:
        return NEW["shots"]
    if again := _AGAIN.fullmatch(name):
        return NEW["again"] if int(again[1]) > 1 else 1.0
    return NEW.get(name.rpartition("-")[2], 1.0)

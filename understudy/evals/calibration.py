"""What people's labels say about the judge, and the coverage rate with its mistakes taken out.

Sensitivity and specificity with Jeffreys' intervals. Two ways to correct: from labels on other answers (Rogan and
Gladen 1978), or on some of the answers that the rate is of (double sampling, Tenenbein 1970, which is PPI++ of
Angelopoulos et al. 2023 for a yes-or-no judge). MOVER (Zou and Donner 2008) carries over the uncertainty of rate and
labels, for the first inverted as Fieller (1954) does for a ratio. The unit is the item.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from understudy.errors import DataError
from understudy.evals import agreement, exact, looks, stats
from understudy.evals.coverage import rate
from understudy.evals.stats import Interval

Design = Literal["same", "separate"]
"""Labels on a random part of the answers that the rate is of, or on others that the same judge graded."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One labelled answer. Grades are (similarity, precision), None where nobody gave them."""

    item: str
    judge: float
    """1 where the judge's grades reach the thresholds, else 0; a share where it was asked several times."""
    person: bool
    judge_grades: tuple[float | None, float | None] = (None, None)
    person_grades: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True, slots=True)
class Table:
    """Labelled items by (judge, person); an item with several labelled answers counts once, in parts."""

    items: int
    both: float
    judge_only: float
    person_only: float
    neither: float


def table(pairs: Sequence[Pair]) -> Table:
    """The two-by-two table. Raises DataError LABELS_EMPTY without pairs."""
    if not pairs:
        what = "no labelled answer that the judge has graded"
        raise DataError("LABELS_EMPTY", "calibration", what, "label answers of this run")
    answers = Counter(p.item for p in pairs)
    cells = [0.0, 0.0, 0.0, 0.0]
    for p in pairs:
        weight = 1 / answers[p.item]
        cells[0 if p.person else 1] += weight * p.judge
        cells[2 if p.person else 3] += weight * (1 - p.judge)
    return Table(len(answers), *cells)


def sensitivity(of: Table, confidence: float = 0.95) -> Interval:
    """How often the judge calls an answer covered that people call covered."""
    return _share(of.both, of.both + of.person_only, confidence, "covered")


def specificity(of: Table, confidence: float = 0.95) -> Interval:
    """How often the judge calls an answer not covered that people call not covered."""
    return _share(of.neither, of.neither + of.judge_only, confidence, "not covered")


def kappa(pairs: Sequence[Pair], confidence: float = 0.95) -> Interval | None:
    """Cohen's kappa (1960) of judge and people; None where neither ever changes its mind."""
    judge, person = [p.judge for p in pairs], [float(p.person) for p in pairs]
    return binary_kappa(judge, person, [p.item for p in pairs], confidence)


def binary_kappa(
    a: Sequence[float], b: Sequence[float], items: Sequence[str], confidence: float = 0.95
) -> Interval | None:
    """Kappa of two columns of 0 and 1, drawn by item. Equal columns keep room for what was not drawn."""
    found = agreement.interval(a, b, agreement.weighted_kappa, confidence, items)
    if found is None or found.value < 1:
        return found
    share = sum(b) / len(b)
    unseen = 1 - ((1 - confidence) / 2) ** (1 / found.n)
    return Interval(found.value, max(-1.0, 1 - unseen / (2 * share * (1 - share))), 1.0, found.n)


def spearman(pairs: Sequence[Pair], grade: int, confidence: float = 0.95) -> Interval | None:
    """Rank correlation of judge's and people's grades, 0 for similarity and 1 for precision; None below 3 of them."""
    given = [(p.item, p.judge_grades[grade], p.person_grades[grade]) for p in pairs]
    both = [(item, a, b) for item, a, b in given if a is not None and b is not None]
    if len(both) < 3:
        return None
    columns = [a for _, a, _ in both], [b for _, _, b in both]
    return agreement.interval(*columns, agreement.spearman, confidence, [item for item, _, _ in both])


def report(pairs: Sequence[Pair], confidence: float = 0.95) -> dict[str, Any]:
    """All of the above in JSON form, None for what these labels cannot tell."""
    of = table(pairs)
    found: dict[str, Interval | None] = {
        "sensitivity": sensitivity(of, confidence) if of.both + of.person_only else None,
        "specificity": specificity(of, confidence) if of.neither + of.judge_only else None,
        "kappa": kappa(pairs, confidence),
        "spearman_similarity": spearman(pairs, 0, confidence),
        "spearman_precision": spearman(pairs, 1, confidence),
    }
    return {"answers": len(pairs), "items": of.items, **{k: v.to_json() if v else None for k, v in found.items()}}


def corrected(
    values: Mapping[str, float], pairs: Sequence[Pair], design: Design, confidence: float = 0.95, samples: int = 1
) -> Interval:
    """The rate of answers that people would call covered, from the judge's item values and a labelled slice.

    `same`: the labelled answers are a random part of those of `values` (random among those of one verdict is enough).
    `separate`: they are of other items, and the judge errs on both alike. Raises DataError LABELS_DESIGN when that
    cannot be, LABELS_ONE_SIDED without a label of either kind, JUDGE_UNINFORMATIVE when the labels do not show that
    the judge tells good from bad.
    """
    of = table(pairs)
    inside = {p.item for p in pairs} & values.keys()
    expected = of.items if design == "same" else 0
    if len(inside) != expected:
        what = f"{len(inside)} of {of.items} labelled items are among the {len(values)} judged ones"
        fix = "label a random part of the judged answers" if design == "same" else "label other items, or all of these"
        raise DataError("LABELS_DESIGN", "calibration", what, fix)
    judged = rate(values, confidence, samples)
    if design == "same":
        good, bad = of.both + of.judge_only, of.person_only + of.neither
        yes, no = _open_share(of.both, good, confidence), _open_share(of.person_only, bad, confidence)
        value, low, high = double_sampling(_arrays(judged), _arrays(yes), _arrays(no))
        return _interval(value, low, high, judged.n)
    right, wrong = sensitivity(of, confidence), specificity(of, confidence)
    value, low, high, usable = rogan_gladen(_arrays(judged), _arrays(right), _arrays(wrong))
    if not usable:
        what = (
            f"sensitivity {right.value:.2f} [{right.low:.2f}, {right.high:.2f}] and specificity {wrong.value:.2f} "
            f"[{wrong.low:.2f}, {wrong.high:.2f}] may add up to 1, which is what guessing reaches"
        )
        raise DataError("JUDGE_UNINFORMATIVE", "calibration", what, "label more answers, or use a better judge")
    return _interval(value, low, high, judged.n)


Three = tuple[Any, Any, Any]
"""(value, low, high) of a proportion: floats or arrays of one shape."""


def rogan_gladen(judged: Three, right: Three, wrong: Three) -> tuple[Any, Any, Any, Any]:
    """(value, low, high, usable) from the judge's rate, its sensitivity and its specificity.

    The ends are the rates t at which judged - t * right - (1 - t) * (1 - wrong) is just no longer compatible with 0.
    Not usable where the interval of right + wrong reaches down to 1.
    """
    import numpy as np

    (q, q_low, q_high), (s, s_low, s_high), (c, c_low, c_high) = _ordered(judged, right, wrong)
    power, above = s + c - 1, q + c - 1
    low, low_ok = _root(power, above, q - q_low, s_high - s, c - c_low, -1)
    high, high_ok = _root(power, above, q_high - q, s - s_low, c_high - c, 1)
    usable = low_ok & high_ok & (power > np.sqrt((s - s_low) ** 2 + (c - c_low) ** 2))
    value = np.clip(above / np.where(power == 0, 1, power), 0, 1)
    return value, np.minimum(low, value), np.maximum(high, value), usable


def double_sampling(judged: Three, yes: Three, no: Three) -> Three:
    """(value, low, high): judged * yes + (1 - judged) * no, the shares of covered answers among either verdict."""
    import numpy as np

    (q, q_low, q_high), (a, a_low, a_high), (b, b_low, b_high) = _ordered(judged, yes, no)
    value, gain = q * a + (1 - q) * b, a - b
    down = gain * np.where(gain > 0, q - q_low, q - q_high)
    up = gain * np.where(gain > 0, q_high - q, q_low - q)
    low = value - np.sqrt((q * (a - a_low)) ** 2 + ((1 - q) * (b - b_low)) ** 2 + down**2)
    high = value + np.sqrt((q * (a_high - a)) ** 2 + ((1 - q) * (b_high - b)) ** 2 + up**2)
    return value, np.clip(low, 0, 1), np.clip(high, 0, 1)


def _ordered(*threes: Three) -> list[Three]:
    """Each end on its side of the value: Jeffreys' interval may leave out a value of 0 or 1 by the last bit."""
    import numpy as np

    return [(v, np.minimum(low, v), np.maximum(high, v)) for v, low, high in threes]


def _root(power: Any, above: Any, dq: Any, ds: Any, dc: Any, side: int) -> tuple[Any, Any]:
    """The t on one side of above / power with (above - t power)^2 = dq^2 + t^2 ds^2 + (1 - t)^2 dc^2."""
    import numpy as np

    square = power**2 - ds**2 - dc**2
    linear = -2 * above * power + 2 * dc**2
    constant = above**2 - dq**2 - dc**2
    spread = np.sqrt(np.maximum(linear**2 - 4 * square * constant, 0))
    ok = square > 0
    found = (-linear + side * spread) / (2 * np.where(ok, square, 1))
    return np.where(ok, np.clip(found, 0, 1), 0.0 if side < 0 else 1.0), ok


def compare(
    first: Mapping[tuple[str, int], bool],
    second: Mapping[tuple[str, int], bool],
    bar: float,
    confidence: float = 0.95,
    samples: int = 1,
) -> dict[str, Any]:
    """Two judges of the same answers, (item, sample) -> covered: agreement, paired difference, and what each decides.

    `flips` says that one of them clears the bar and the other does not. Raises DataError STATS_UNPAIRED when the two
    did not judge the same answers.
    """
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        what = f"{len(odd)} answers were judged once only, e.g. item {odd[0][0]!r}, sample {odd[0][1]}"
        raise DataError("STATS_UNPAIRED", "two judges", what, "let both judge the same answers")
    keys = sorted(first)
    one, other = [[float(of[k]) for k in keys] for of in (first, second)]
    agree = binary_kappa(one, other, [item for item, _ in keys], confidence)
    values = [_by_item(of) for of in (first, second)]
    rates = [rate(v, confidence, samples) for v in values]
    clears = [looks.outcome(r, bar) == "clears" for r in rates]
    return {
        "answers": len(keys),
        "kappa": agree.to_json() if agree else None,
        "rates": [r.to_json() for r in rates],
        "difference": stats.paired_difference(values[0], values[1], confidence).to_json(),
        "clears": clears,
        "flips": clears[0] != clears[1],
    }


def _by_item(covered: Mapping[tuple[str, int], bool]) -> dict[str, float]:
    found: dict[str, list[bool]] = {}
    for (item, _), value in sorted(covered.items()):
        found.setdefault(item, []).append(value)
    return {item: sum(of) / len(of) for item, of in found.items()}


def _share(part: float, whole: float, confidence: float, kind: str = "") -> Interval:
    if whole <= 0:
        what = f"no answer is labelled as {kind}, so nobody knows how the judge treats those"
        raise DataError("LABELS_ONE_SIDED", "calibration", what, "label more answers, of weaker models too")
    low, high = exact.jeffreys(part, whole, confidence)
    value = part / whole
    return Interval(value, min(value, float(low[0])), max(value, float(high[0])), round(whole))


def _open_share(part: float, whole: float, confidence: float) -> Interval:
    """Wilson's interval, since Jeffreys' would promote 3 % where 2.5 % is stated; all of 0..1 without a label."""
    if whole <= 0:
        return Interval(0.5, 0.0, 1.0, 0)
    return Interval(part / whole, *stats.wilson_ends(part / whole, whole, confidence), round(whole))


def _arrays(of: Interval) -> Three:
    import numpy as np

    return np.float64(of.value), np.float64(of.low), np.float64(of.high)


def _interval(value: Any, low: Any, high: Any, n: int) -> Interval:
    return Interval(float(value), float(low), float(high), n)

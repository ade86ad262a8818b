"""Early stops: a teacher that repeats itself, or whose rows are of no use, is not asked further."""

from __future__ import annotations

from understudy.config import SynthesizeConfig
from understudy.data.synthesis.batch import Batch
from understudy.data.synthesis.diversity import diversity
from understudy.errors import DataError

MIN_DIVERSITY = 0.2
"""Mean share of word triples that two replies do not have in common; below it the teacher repeats itself."""
SHOWN = 100
"""Characters of an example in a diagnosis."""


def check_health(cfg: SynthesizeConfig, batch: Batch, sent: int, provider: str, replies: str = "") -> None:
    """Stop early when the teacher repeats itself or most of its rows are of no use.

    Raises DataError SYNTH_COLLAPSE with the diversity, SYNTH_YIELD with the commonest reason, an example of it and
    where the replies lie.
    """
    found = diversity(batch.replies)
    if found < MIN_DIVERSITY:
        raise DataError(
            "SYNTH_COLLAPSE",
            "synthesize",
            f"the replies are near-identical: diversity {found:.3f} (at least {MIN_DIVERSITY} is needed) over "
            f"{len(batch.replies)} replies",
            "raise teacher.temperature, or use another teacher",
        )
    useful = batch.useful()
    # Rows of earlier rounds say that the documents are used up, not that the teacher is bad.
    asked = sent * cfg.rows_per_call - batch.repeated
    if useful < cfg.min_yield * asked:
        what = f"{useful} of the first {asked} asked rows are usable, under min_yield {cfg.min_yield:g}"
        where = f"; the replies lie in {replies}" if replies else ""
        fix = (
            "the simulated teacher knows little but its example's sentences (docs/simulated-service.md); use a real one"
            if provider == "simulated"
            else "mend the template (synthesize.prompt), or use another teacher"
        )
        raise DataError("SYNTH_YIELD", "synthesize", f"{what}; {diagnosis(batch)}{where}", fix)


def diagnosis(batch: Batch) -> str:
    """Why rows were rejected, the commonest reason first, with an example of it."""
    rejected = sorted(batch.ledger.rejected.items(), key=lambda item: (-item[1], item[0]))
    counts = ", ".join(f"{reason} {count}" for reason, count in rejected) or "none"
    said = f"rejected: {counts}; empty replies: {batch.ledger.notes.get('empty_replies', 0)}"
    first = next((r for r in batch.rejects if rejected and r["reason"] == rejected[0][0]), None)
    return f"{said}; e.g. {first['where']}: {first['reason']}, {first['detail'][:SHOWN]!r}" if first else said

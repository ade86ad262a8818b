"""How metrics are written for people: name, what it says, unit, bounds, and a value in all that."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is written: its name, what it says, the factor to its shown unit, its bounds."""

    name: str
    says: str
    factor: float = 100.0
    unit: str = "%"
    decimals: int = 1
    low: float | None = 0.0
    high: float | None = 1.0
    better: str = "higher"
    difference: str = "percentage points"


_GRADES = "grade points"
METRICS = {
    "coverage": Metric("Coverage", "share of prompts whose answer the judge grades at or above both thresholds"),
    "judge_similarity": Metric("Judge: similarity", "mean grade, 1 to 100", 1.0, "", 1, 0.0, 100.0, difference=_GRADES),
    "judge_precision": Metric("Judge: precision", "mean grade, 1 to 100", 1.0, "", 1, 0.0, 100.0, difference=_GRADES),
    "exact_facts": Metric("Exact facts", "share of answers with every fact and no other number or name"),
    "exact": Metric("Exact match", "share of answers equal to the reference"),
    "number": Metric("Final number", "share of answers with the right final number"),
    "f1": Metric("F1", "word overlap with the reference"),
    "bleu": Metric("BLEU", "n-gram precision"),
    "chrf": Metric("chrF", "character n-gram F-score"),
    "rouge1": Metric("ROUGE-1", "unigram F-score"),
    "rouge2": Metric("ROUGE-2", "bigram F-score"),
    "rougeL": Metric("ROUGE-L", "longest common subsequence F-score"),
    "relevance": Metric("Relevance", "whether the answer addresses the prompt"),
    "completeness": Metric("Completeness", "share of the reference's content in the answer"),
    "faithfulness": Metric("Faithfulness", "share of the answer that the context supports"),
    "acceptability": Metric("Acceptability", "how acceptable the answer is as language"),
    "sentiment": Metric("Sentiment", "1 very negative to 5 very positive", 1.0, "", 2, 1.0, 5.0, difference="levels"),
    "not_negative": Metric("Not negative", "share of answers with neutral or better sentiment"),
    "refusal": Metric("Refusals", "share of answers that give none; lower is better", better="lower"),
    "diversity": Metric("Diversity", "1 - mean similarity to every other answer"),
    "distinct1": Metric("Distinct words", "different words per word of all answers"),
    "distinct2": Metric("Distinct pairs", "different pairs of words per pair of all answers"),
    "within_length": Metric("Within length", "share of answers as long as the request wants"),
    "length": Metric("Length", "words of an answer", 1.0, "", 1, 0.0, None, difference="words"),
    "loss": Metric(
        "Loss", "nats per token of the reference; lower is better", 1.0, "", 3, 0.0, None, "lower", "nats per token"
    ),
}


def describe(metric: str) -> Metric:
    """How a metric is written; one that is not known here is shown as it is."""
    return METRICS.get(metric) or Metric(metric, "", 1.0, "", 3, None, None, difference="")


def shown(metric: Metric, value: float, *, signed: bool = False, unit: bool = True) -> str:
    """A value in the metric's unit with a true minus sign; no `-0.0`."""
    text = f"{value * metric.factor:{'+' if signed else ''}.{metric.decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}") + (f"\N{NO-BREAK SPACE}{metric.unit}" if unit and metric.unit else "")

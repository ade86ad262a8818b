"""The verdict: does the candidate reach the bar, and does it beat every baseline, on the held prompts.

Each rule reads one interval at the gate's confidence, so its one-sided error rate is (1 - confidence) / 2. All rules
must pass, so more rules make a wrong pass rarer, never likelier.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from understudy.config import GateConfig
from understudy.core.records import read_jsonl
from understudy.errors import ConfigError, IntegrityError
from understudy.evals import coverage, stats
from understudy.evals.score import better, interval, kind, stretched

Held = Mapping[str, tuple[Path, str]]
"""Who answered -> (folder of scores, setting); who is base, few_shot, candidate, champion or service."""
Values = dict[str, dict[str, float]]
"""metric -> item -> value"""
MIN_ITEMS = 20
"""Fewer held items decide nothing: a bootstrap of two of them spans but their two values."""
BASELINES = ("base", "few_shot", "champion", "service")
NAMES = {"base": "the base", "few_shot": "the best few-shot prompt", "champion": "the champion"}


def decide(
    cfg: GateConfig,
    held: Held,
    out: Path,
    *,
    champion: bool,
    control: str | None,
    bias: Mapping[str, Any] | None = None,
    canaries: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `verdict.json` and return it. `champion` says that there is one, so that it cannot be left out.

    `bias` holds the facts of the bias report, `canaries` those of the canaries. A verdict with `control` set is that of
    a negative control: whatever it says, nothing of it is registered. Raises ConfigError for a metric that was not
    scored, IntegrityError when two scores are not of the same items.
    """
    if champion and "champion" not in held:
        raise IntegrityError("GATE_CHAMPION", "gate", "the champion was not scored", "run the plan again")
    values = {who: _values(*held[who]) for who in sorted(held)}
    _same_items(held, values)
    samples = {who: coverage.samples_of(_rows(*held[who])) for who in held}
    candidate = values["candidate"]
    if cfg.metric not in candidate:
        known = ", ".join(sorted(candidate))
        raise ConfigError("GATE_METRIC", "gate.metric", f"{cfg.metric!r} was not scored", f"choose one of: {known}")
    favoured = {
        who: {**of, "coverage": _favoured(_rows(*held[who]))} if "coverage" in of else of
        for who, of in values.items()
        if who != "candidate"
    } | {"candidate": candidate}
    differences = _differences(favoured, cfg)
    items = len(candidate[cfg.metric])
    rules = [] if items >= MIN_ITEMS else [_too_few(items)]
    rules += [] if cfg.bar is None else [_bar(cfg, cfg.bar, candidate[cfg.metric], samples["candidate"])]
    rules += [_floor(cfg, metric, bar, candidate, samples["candidate"]) for metric, bar in cfg.floors.items()]
    rules += [_beat(cfg, who, differences.get(f"candidate-{who}")) for who in cfg.must_beat]
    rules += [_bias(bias)] if bias and bias["block"] else []
    rules += [_canaries(canaries)] if canaries else []
    verdict = {
        "passed": all(rule["passed"] for rule in rules),
        "metric": cfg.metric,
        "confidence": cfg.confidence,
        "control": control,
        "rules": rules,
        "held": {
            who: {m: _interval(m, v, cfg.confidence, samples[who]).to_json() for m, v in sorted(of.items())}
            for who, of in values.items()
        },
        "canaries": canaries,
        "settings": {who: held[who][1] for who in values},
        "share_of_service": _share(favoured, cfg),
        "differences": {pair: {m: d.to_json() for m, d in of.items()} for pair, of in differences.items()},
    }
    (out / "verdict.json").write_text(json.dumps(verdict, ensure_ascii=False, indent=1, sort_keys=True) + "\n", "utf-8")
    return verdict


def _interval(metric: str, values: Mapping[str, float], confidence: float, samples: int) -> stats.Interval:
    return interval(metric, {k: values[k] for k in sorted(values)}, confidence, samples)


def _values(scores: Path, setting: str) -> Values:
    found: dict[str, dict[str, list[float]]] = {}
    for row in _rows(scores, setting):
        for metric, value in row["values"].items():
            found.setdefault(metric, {}).setdefault(row["id"], []).append(float(value))
    if not found:
        raise IntegrityError("GATE_EMPTY", scores.name, f"holds no scores of setting {setting!r}", "run the plan again")
    return {metric: {k: sum(v) / len(v) for k, v in of.items()} for metric, of in found.items()}


def _rows(scores: Path, setting: str) -> Iterator[dict[str, Any]]:
    return (row for row in read_jsonl(scores / "scores.jsonl") if row["setting"] == setting)


def _same_items(held: Held, values: Mapping[str, Values]) -> None:
    """Equal rows, from the files: a judge's failure may leave a metric out, but no side may lack an item."""
    items = {who: {row["id"] for row in _rows(*held[who])} for who in values}
    for who, ids in items.items():
        if odd := sorted(ids ^ items["candidate"]):
            what = f"{who} and candidate differ in {len(odd)} items, e.g. {odd[0]!r}"
            raise IntegrityError("GATE_ITEMS", "gate", what, "score all of them on the same held set")


def _differences(values: Mapping[str, Values], cfg: GateConfig) -> dict[str, dict[str, stats.Interval]]:
    found: dict[str, dict[str, stats.Interval]] = {}
    for who in BASELINES:
        if who not in values:
            continue
        ours, theirs = values["candidate"], values[who]
        if cfg.metric in theirs and ours[cfg.metric].keys() != theirs[cfg.metric].keys():
            what = f"{who} and candidate have {cfg.metric} for different items"
            raise IntegrityError("GATE_ITEMS", "gate", what, "score both again")
        pair: dict[str, stats.Interval] = {}
        for metric in sorted(ours.keys() & theirs.keys()):
            shared = ours[metric].keys() & theirs[metric].keys()
            if shared:
                a = {k: ours[metric][k] for k in shared}
                b = {k: theirs[metric][k] for k in shared}
                pair[metric] = stats.paired_difference(stretched(metric, a), stretched(metric, b), cfg.confidence)
        found[f"candidate-{who}"] = pair
    return found


def _share(values: Mapping[str, Values], cfg: GateConfig) -> dict[str, Any] | None:
    """What share of the service's own rate the candidate reaches; only for rates, where higher is better."""
    if "service" not in values or kind(cfg.metric) != "rate" or cfg.metric not in values["service"]:
        return None
    ours, theirs = values["candidate"][cfg.metric], values["service"][cfg.metric]
    found = stats.paired_ratio(ours, theirs, cfg.confidence) if ours.keys() == theirs.keys() else None
    return found.to_json() if found and found.high < math.inf else None


def _favoured(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Coverage of a baseline: its answers count as covered where the judge failed, so that no failure helps us."""
    found: dict[str, list[float]] = {}
    given = [row for row in rows if "coverage" in row["values"]]
    judged = any("judge_similarity" in row["values"] for row in given)
    for row in given:
        failed = judged and "judge_similarity" not in row["values"]
        found.setdefault(row["id"], []).append(1.0 if failed else float(row["values"]["coverage"]))
    return {k: sum(of) / len(of) for k, of in found.items()}


def _too_few(items: int) -> dict[str, Any]:
    more = "give more rows, or keep fewer of them from held (split.test, split.seed_pairs, split.dev_pairs)"
    return _rule("enough items", False, f"{items} held items; fewer than {MIN_ITEMS} decide nothing; {more}", {}, None)


def _bar(cfg: GateConfig, bar: float, values: Mapping[str, float], samples: int) -> dict[str, Any]:
    found = _interval(cfg.metric, values, cfg.confidence, samples)
    lower_is_better = better(cfg.metric) == "lower"
    passed = found.high <= bar if lower_is_better else found.low >= bar
    end = "upper" if lower_is_better else "lower"
    text = (
        f"{cfg.metric} on held is {found.value:.3f} [{found.low:.3f}, {found.high:.3f}], n {found.n}; its {end} end "
        f"{'reaches' if passed else 'misses'} the bar of {bar:g} ({_error(cfg)})"
    )
    return _rule("bar", passed, text, found.to_json(), bar)


def _floor(cfg: GateConfig, metric: str, bar: float, values: Values, samples: int) -> dict[str, Any]:
    if metric not in values:
        known = ", ".join(sorted(values))
        raise ConfigError("GATE_METRIC", "gate.floors", f"{metric!r} was not scored", f"choose one of: {known}")
    rule = _bar(cfg.model_copy(update={"metric": metric}), bar, values[metric], samples)
    return {**rule, "name": f"floor {metric}", "metric": metric}


def _beat(cfg: GateConfig, who: str, pair: dict[str, stats.Interval] | None) -> dict[str, Any]:
    name = f"beats {who}"
    if pair is None:
        if who != "champion":
            raise IntegrityError("GATE_ITEMS", "gate", f"{who} was not scored", "run the plan again")
        return _rule(name, True, "none yet", {}, None)
    if cfg.metric not in pair:
        raise IntegrityError("GATE_ITEMS", "gate", f"{who} has no {cfg.metric}", "score all with the same scorers")
    found = pair[cfg.metric]
    lower_is_better = better(cfg.metric) == "lower"
    passed = found.high < 0 if lower_is_better else found.low > 0
    side = "below" if lower_is_better else "above"
    text = (
        f"{cfg.metric} of the candidate minus {NAMES[who]} is {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}],"
        f" n {found.n}, paired; it is {'' if passed else 'not '}{side} zero ({_error(cfg)})"
    )
    return _rule(name, passed, text, found.to_json(), 0.0)


def _bias(found: Mapping[str, Any]) -> dict[str, Any]:
    """No flag of the candidate's; a design that could flag nothing does not pass for a clean one."""
    limit = f"alpha {found['alpha']:g} over {found['tests']} tests (Holm), effects from {found['min_effect']:g} points"
    if not found["detects"]:
        text = f"too few units to flag anything at {limit}; raise bias.max_entities, or ask about fewer buckets"
    elif found["flagged"]:
        text = f"{found['flagged']} of {found['tests']} differences are flagged at {limit}; {found['worst']}"
    else:
        text = f"no difference is flagged at {limit}"
    return _rule("bias", found["detects"] and not found["flagged"], text, {}, None)


def _canaries(found: Mapping[str, Any]) -> dict[str, Any]:
    """Frozen when teacher or judge moved while the run went on: its numbers are not of one measure."""
    moved = found["moved"]
    text = (
        "; ".join(moved) + "; run again with --new when the provider has settled, or name the version in `model`"
        if moved
        else f"teacher and judge said the same of {found['probes']} probes in all {found['rounds']} rounds of canaries"
    )
    return _rule("canaries", not moved, text, {}, None)


def _error(cfg: GateConfig) -> str:
    return f"nominal one-sided error rate {(1 - cfg.confidence) * 50:.3g} % per comparison"


def _rule(name: str, passed: bool, text: str, found: dict[str, Any], bar: float | None) -> dict[str, Any]:
    ends = {key: found.get(key) for key in ("value", "low", "high")}
    return {"name": name, "passed": passed, "text": text, **ends, "bar": bar}

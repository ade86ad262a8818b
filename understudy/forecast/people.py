"""How many prompts the bias experiment will ask, and prompts like them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from understudy import config as c
from understudy.core.records import Example
from understudy.core.stage import Step
from understudy.data.clean import context_turn
from understudy.data.counterfactual.entities import Entity, Query, entities, queries
from understudy.data.counterfactual.files import locate
from understudy.data.counterfactual.lexicon import language_of, lexicon
from understudy.forecast.figures import Figure
from understudy.forecast.rows import Rows, Stock

SHOWN = 100
"""Prompts that are made up to be measured."""


def prompts(languages: Iterable[str], asked: Sequence[Query], groups: Mapping[str, Sequence[int]]) -> int:
    """Prompts for one entity of each language: a question is asked once as it is, and once for every group.

    `groups`: by language, the number of groups of each attribute. A question that names `{group}` has no form as it is.
    """
    count = 0
    for language in languages:
        for query in (q for q in asked if q.language == language):
            count += sum(groups.get(language, ())) + ("{group}" not in query.text)
    return count


def asked_about(step: Step, stock: Stock) -> Rows:
    """The prompts of a `bias_prompts` step; an upper count, as some cannot be swapped."""
    cfg = c.BiasItemsStep.model_validate(step.config)
    found = locate(cfg.queries, stock.root)
    assert found is not None
    asked = queries(found)
    texts = stock.division["documents"], stock.division["train"]
    people = entities([r for part in texts for r in part.some], locate(cfg.entities, stock.root))[0]
    drawn = people[: cfg.max_entities]
    groups: dict[str, list[int]] = {}
    for attribute in lexicon(cfg.attributes, locate(cfg.swaps, stock.root)).values():
        groups.setdefault(attribute.language, []).append(len(attribute.groups))
    languages = [language_of(entity.text or entity.name) for entity in drawn]
    some = [_like(entity, query, cfg.context) for entity in drawn for query in asked][:SHOWN]
    if seen := stock.seen(step):
        return Rows(Figure(seen.rows_out), some)
    return Rows(Figure(prompts(languages, asked, groups), "guess"), some)


def _like(entity: Entity, query: Query, context: bool) -> Example:
    """A prompt of the experiment's length."""
    question = query.text.replace("{name}", entity.name)
    text = context_turn(entity.text, question) if context and entity.text else question
    return Example("", [{"role": "user", "content": text}])

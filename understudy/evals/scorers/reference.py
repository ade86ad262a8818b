"""The cards of all scorers as Markdown: docs/scorers.md is written from it."""

from __future__ import annotations

from understudy.evals import scorers


def reference() -> str:
    """A table of all scorers, then every card."""
    rows = ["| name | kind | unit | better | needs |", "|---|---|---|---|---|"]
    cards: list[str] = []
    for name in scorers.names():
        s = scorers.about(name)
        over = "all answers of a setting" if isinstance(s, scorers.SetScorer) else "one answer"
        needs = ", ".join(s.needs) or "-"
        rows.append(f"| [`{name}`](#{name.lower()}) | {s.kind}, over {over} | {s.unit} | {s.better} | {needs} |")
        cards.append(f"### {name}\n\n{s.card.measures}\n\n*Checked on.* {s.card.checked_on}\n\n*Weak.* {s.card.weak}")
    return "\n".join(rows) + "\n\n" + "\n\n".join(cards)

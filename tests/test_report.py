"""The report is one safe, self-contained page that says what was measured and what was simulated."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from understudy.evals import plots
from understudy.evals.metrics import METRICS, describe, shown
from understudy.evals.report import ReportData, render

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}</style></svg>"


def interval(value: float, half: float, n: int = 120) -> dict[str, Any]:
    return {"value": value, "low": max(0.0, value - half), "high": value + half, "n": n}


def held() -> dict[str, dict[str, Any]]:
    table = {
        "base": (0.008, 17.2, 12.1, 0.017, 0.11, 4.812),
        "few_shot": (0.092, 33.5, 28.9, 0.108, 0.31, 3.944),
        "candidate": (0.792, 84.1, 82.7, 0.767, 0.86, 0.412),
        "champion": (0.650, 74.6, 71.0, 0.625, 0.77, 0.688),
        "service": (0.917, 93.0, 92.2, 0.900, 0.95, None),
    }
    found: dict[str, dict[str, Any]] = {}
    for who, (coverage, similarity, precision, facts, f1, loss) in table.items():
        found[who] = {
            "coverage": interval(coverage, 0.072),
            "judge_similarity": interval(similarity, 4.4),
            "judge_precision": interval(precision, 4.9),
            "exact_facts": interval(facts, 0.075),
            "f1": interval(f1, 0.05),
        }
        if loss is not None:
            found[who]["loss"] = interval(loss, 0.06)
    return found


def verdict() -> dict[str, Any]:
    of = held()
    differences = {
        f"candidate-{who}": {
            m: {
                "value": of["candidate"][m]["value"] - of[who][m]["value"],
                "low": of["candidate"][m]["value"] - of[who][m]["value"] - (4.0 if m.startswith("judge") else 0.09),
                "high": of["candidate"][m]["value"] - of[who][m]["value"] + (4.0 if m.startswith("judge") else 0.09),
                "n": 120,
            }
            for m in of[who]
        }
        for who in ("base", "few_shot", "champion", "service")
    }
    differences["candidate-service"]["f1"] |= {"low": -0.19, "high": 0.01}
    error = "one-sided error rate 2.5 % per comparison"
    beat = "coverage of the candidate minus {} is {:+.3f} [{:+.3f}, {:+.3f}], n 120, paired; it is above zero ({})"

    def rule(name: str, who: str) -> dict[str, Any]:
        d = differences[f"candidate-{name}"]["coverage"]
        ends = {k: d[k] for k in ("value", "low", "high")}
        text = beat.format(who, *ends.values(), error)
        return {"name": f"beats {name}", "passed": True, "text": text, **ends, "bar": 0.0}

    text = f"coverage on held is 0.792 [0.720, 0.864], n 120; its lower end reaches the bar of 0.6 ({error})"
    bar = {"name": "bar", "passed": True, "text": text, "value": 0.792, "low": 0.72, "high": 0.864, "bar": 0.6}
    names = {"base": "the base", "few_shot": "the best few-shot prompt", "champion": "the champion"}
    return {
        "passed": True,
        "metric": "coverage",
        "confidence": 0.95,
        "control": None,
        "settings": {"base": "greedy", "few_shot": "k=4", "candidate": "greedy"},
        "rules": [bar, *(rule(name, who) for name, who in names.items())],
        "held": of,
        "differences": differences,
    }


def answer(text: str, similarity: int, precision: int, reason: str) -> dict[str, Any]:
    covered = int(similarity >= 70 and precision >= 70)
    values = {"coverage": covered, "judge_similarity": similarity, "judge_precision": precision, "exact_facts": covered}
    return {"text": text, "values": values, "reasons": {"coverage": reason}}


def item(i: int, category: str, question: str, context: str, reference: str, wrong: str) -> dict[str, Any]:
    good = i % 4 != 3
    return {
        "id": f"held-{i:03}",
        "category": category,
        "group": "g",
        "context": context,
        "question": question,
        "reference": reference,
        "answers": {
            "base": answer("The of and the course is the", 4, 2, "No fact of the reference is in the answer."),
            "few-shot": answer(wrong, 41, 30, "Right form, but another number than in the reference."),
            "candidate": answer(reference, 97, 98, "All facts of the reference, nothing else.")
            if good
            else answer(wrong, 38, 22, "The room is that of another course; the time is missing."),
            "champion": answer(wrong if i % 3 else reference, 60, 55, "One of two facts."),
            "service": answer(reference, 98, 97, "All facts of the reference."),
        },
    }


def items() -> list[dict[str, Any]]:
    context = (
        "Course MA-204, Linear Algebra, is taught by Prof. Ada Okafor in room 3.12 on Tuesdays at 10:15. "
        "It gives 6 credits and needs MA-101."
    )
    asked = [
        ("schedule", "When and where is Linear Algebra taught?", "On Tuesdays at 10:15 in room 3.12.", "In room 2.01."),
        ("credits", "How many credits does MA-204 give?", "It gives 6 credits.", "It gives 5 credits."),
        ("prerequisite", "What must I have passed before MA-204?", "MA-101.", "MA-103 and MA-101."),
    ]  # fmt: skip
    return [item(i, *asked[i % 3][:2], context, *asked[i % 3][2:]) for i in range(12)]


def stages() -> list[dict[str, Any]]:
    rows: list[tuple[str, float, bool, int | None, int | None, dict[str, int]]] = [
        ("collect", 0.8, True, 412, 409, {"field_missing": 2, "not_utf8": 1}),
        ("clean", 0.4, True, 409, 402, {"too_short": 5, "too_long": 2}),
        ("dedupe", 0.2, True, 402, 388, {"duplicate": 14}),
        ("split", 0.3, True, 388, 388, {}),
        ("synthesize-1", 6.4, False, 252, 231, {"duplicate": 12, "facts_not_in_document": 9}),
        ("pack-1", 1.1, False, 291, 291, {}),
        ("train-1", 71.9, False, None, None, {}),
        ("score-dev-1", 4.2, False, 60, 60, {}),
        ("synthesize-2", 6.9, False, 251, 228, {"duplicate": 18, "in_coverage": 5}),
        ("train-2", 118.3, False, None, None, {}),
        ("answer-held-candidate", 3.1, False, 120, 120, {}),
        ("score-held-candidate", 5.0, False, 120, 120, {}),
        ("gate", 0.7, False, None, None, {}),
    ]
    return [
        {"name": n, "seconds": s, "cached": c, "rows_in": i, "rows_out": o, "rejected": r, "notes": {}}
        for n, s, c, i, o, r in rows
    ]


def sample() -> ReportData:
    def dev(coverage: float, facts: float, loss: float) -> dict[str, Any]:
        return {
            "coverage": interval(coverage, 0.11, 60),
            "exact_facts": interval(facts, 0.11, 60),
            "loss": interval(loss, 0.09, 60),
        }

    return ReportData(
        project="course-advisor",
        metric="coverage",
        verdict=verdict(),
        rounds=[
            {"round": 1, "arm": "targeted", "rows": 231, "skipped": False, "dev": dev(0.483, 0.45, 0.91)},
            {"round": 2, "arm": "targeted", "rows": 459, "skipped": False, "dev": dev(0.683, 0.667, 0.56)},
            {"round": 3, "arm": "targeted", "rows": 688, "skipped": False, "dev": dev(0.783, 0.75, 0.43)},
            {"round": 3, "arm": "untargeted", "rows": 691, "skipped": False, "dev": dev(0.7, 0.683, 0.5)},
        ],
        items=items(),
        stages=stages(),
        versions={"understudy": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0"},
        thresholds={"similarity": 70, "precision": 70, "bar": 0.6},
        simulated=["teacher", "judge", "service"],
        licences=["CC-BY-4.0"],
        run="20261121-0412-7f3a",
        finished="2026-11-21 04:21 UTC",
    )


class Page(HTMLParser):
    """Tags with their attributes, and the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page(tmp_path: Path, data: ReportData) -> tuple[str, Page]:
    html = render(tmp_path, data).read_text("utf-8")
    return html, Page(html)


def test_the_page_says_the_verdict_and_every_section(tmp_path: Path) -> None:
    html, seen = page(tmp_path, sample())
    words = re.sub(r"\s+", " ", seen.text)
    assert "The candidate passes the gate. Coverage on 120 held prompts is 79.2 % (95 % interval 72.0 to 86.4)" in words
    ids = [a["id"] for tag, a in seen.tags if tag == "section"]
    assert ids == [
        "verdict",
        "rounds",
        "held",
        "differences",
        "answers",
        "worst",
        "rows",
        "time",
        "measures",
        "versions",
    ]
    for expected in ("Best few-shot (k=4)", "231 rows", "no aim", "facts_not_in_document", "CC-BY-4.0", "torch"):
        assert expected in words
    assert html == render(tmp_path, sample()).read_text("utf-8"), "equal data give equal bytes"


def test_nothing_runs_and_nothing_is_fetched(tmp_path: Path) -> None:
    html, seen = page(tmp_path, sample())
    assert {tag for tag, _ in seen.tags} & {"script", "img", "link", "iframe", "object", "image", "use"} == set()
    for _, attributes in seen.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert all((attributes.get(name) or "#").startswith("#") for name in ("href", "src"))
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", html)


def test_hostile_strings_stay_text(tmp_path: Path) -> None:
    data = sample()
    bad = item(3, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE + "\ud800")
    bad["id"] = HOSTILE
    bad["answers"][HOSTILE] = answer(HOSTILE, 1, 1, HOSTILE)
    found = verdict()
    found["rules"][0]["text"] = HOSTILE
    found["settings"]["few_shot"] = HOSTILE
    found["held"][HOSTILE] = found["held"]["base"]
    stage = {**stages()[0], "name": HOSTILE, "rejected": {HOSTILE: 1}, "notes": {HOSTILE: 2}}
    data = replace(
        data, project=HOSTILE, verdict=found, items=[bad], stages=[stage], versions={HOSTILE: HOSTILE},
        simulated=[HOSTILE], licences=[HOSTILE], control=HOSTILE, run=HOSTILE, finished=HOSTILE,
        thresholds={HOSTILE: HOSTILE}, rounds=[{**data.rounds[0], "dev": {HOSTILE: interval(0.5, 0.1)}}],
    )  # fmt: skip
    html, seen = page(tmp_path, data)
    assert {tag for tag, _ in seen.tags} & {"script", "img"} == set()
    assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)
    assert seen.text.count("<script>alert(1)</script>") > 20, "shown as text"
    assert "{{ 7*7 }}" in seen.text
    assert html.count("</style>") == 1


def test_every_figure_can_be_heard(tmp_path: Path) -> None:
    _, seen = page(tmp_path, sample())
    figures = [a for tag, a in seen.tags if tag == "svg" and ("role" in a or "aria-hidden" in a)]
    images = [a for a in figures if a.get("role") == "img"]
    assert len(images) > 30 and all(a["aria-label"] for a in images)
    assert all(a.get("aria-hidden") == "true" for a in figures if a.get("role") != "img")
    labels = " ".join(str(a["aria-label"]) for a in images)
    assert "Candidate: Coverage 79.2\N{NO-BREAK SPACE}%, interval 72.0 to 86.4, simulated judge" in labels


def cells(html: str, metric: str) -> list[str]:
    """Of the rounds' table and of the held one."""
    rows = re.findall(rf"<tr><th scope=\"row\">{metric}.*?</tr>", html, re.S)
    assert len(rows) == 2
    return [cell for row in rows for cell in re.findall(r"<td.*?</td>", row, re.S)]


def test_simulated_grades_are_marked_at_every_number_and_real_ones_are_not(tmp_path: Path) -> None:
    html, _ = page(tmp_path, sample())
    judged = cells(html, "Coverage")
    assert len(judged) == 4 + 5 and all("simulated</span>" in cell for cell in judged)
    assert not any("simulated</span>" in cell for cell in cells(html, "Exact facts"))
    html, seen = page(tmp_path, replace(sample(), simulated=[]))
    assert "simulated" not in seen.text.replace("simulated-1", "")


def test_a_metric_that_a_simulated_judge_gives_is_marked_and_its_card_says_who_gives_it(tmp_path: Path) -> None:
    data = sample()
    with_f1 = {who: {**of, "faithfulness": interval(0.5, 0.1)} for who, of in data.verdict["held"].items()}
    data = replace(data, verdict={**data.verdict, "held": with_f1})
    html, seen = page(tmp_path, data)
    assert "Words, not statements" in seen.text and not any(
        "simulated</span>" in row for row in rows_of(html, "Faithfulness")
    )
    html, seen = page(tmp_path, replace(data, by={"faithfulness": "judge"}))
    assert "Given by the judge" in seen.text and "Words, not statements" not in seen.text
    assert rows_of(html, "Faithfulness") and all("simulated</span>" in row for row in rows_of(html, "Faithfulness"))
    html, seen = page(tmp_path, replace(data, by={"faithfulness": "models/mine"}))
    assert "the classifier models/mine" in seen.text


def test_latency_is_shown_with_the_times(tmp_path: Path) -> None:
    _, seen = page(tmp_path, replace(sample(), latency={"candidate": 0.01234, "service": 1.5}))
    assert "Candidate 0.0123" in " ".join(seen.text.split()) and "Service 1.5" in " ".join(seen.text.split())


def rows_of(html: str, metric: str) -> list[str]:
    return re.findall(rf'<tr><th scope="row">{metric}.*?</tr>', html)


def test_a_negative_control_says_so_first(tmp_path: Path) -> None:
    _, seen = page(tmp_path, replace(sample(), control="wrong answers"))
    assert seen.text.index("Negative control: wrong answers") < seen.text.index("The candidate passes")


def test_a_failed_verdict_counts_the_failed_rules(tmp_path: Path) -> None:
    found = verdict()
    found["passed"] = found["rules"][0]["passed"] = False
    _, seen = page(tmp_path, replace(sample(), verdict=found))
    assert "The candidate does not pass: 1 of 4 rules failed." in seen.text


def test_the_worst_answers_are_wrong_ones_worst_first(tmp_path: Path) -> None:
    data = sample()
    data.items[3]["answers"]["candidate"] = answer("nonsense", 1, 1, "no")
    html, _ = page(tmp_path, data)
    worst = html[html.index('id="worst"') : html.index('id="rows"')]
    assert re.findall(r"held-\d+", worst) == ["held-003", "held-007", "held-011"]


def test_a_stage_that_loses_rows_is_called_out(tmp_path: Path) -> None:
    rows = stages()
    rows[0]["rows_out"] = 400
    _, seen = page(tmp_path, replace(sample(), stages=rows))
    assert seen.text.count("does not add up") == 1


def test_an_empty_run_still_gives_a_page(tmp_path: Path) -> None:
    _, seen = page(tmp_path, ReportData(project="p", metric="coverage", verdict={}))
    assert "There is no verdict yet." in seen.text


@pytest.mark.parametrize(("value", "text"), [(0.5, "+50.0"), (-0.5, "\N{MINUS SIGN}50.0"), (-0.0001, "0.0")])
def test_numbers_have_a_true_minus_and_no_negative_zero(value: float, text: str) -> None:
    assert shown(METRICS["coverage"], value, signed=True, unit=False) == text
    assert describe("my_scorer").name == "my_scorer"


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-0.31, 0.02), (4.2, 4.9), (3.0, 3.0), (1e-9, 2e-9), (-8e5, 9e6)]
)
def test_an_axis_holds_its_range_with_few_round_ticks(low: float, high: float) -> None:
    axis = plots.axis(low, high, around=0.0 if low < 0 else None)
    assert axis.low <= low and axis.high >= high and 2 <= len(axis.ticks) <= 9
    assert [axis.at(t) for t in (axis.low, axis.high)] == [0.0, 1.0]
    assert len({axis.label(t) for t in axis.ticks}) == len(axis.ticks)


def test_the_page_says_where_all_rows_came_to_rest(tmp_path: Path) -> None:
    flow = {"read": 446, "written by the teacher": 272, "written as twins": 5, "training": 305}
    flow |= {"dev": 60, "held": 120, "rejected": 238}
    html, seen = page(tmp_path, replace(sample(), flow=flow))
    rows = html[html.index('id="rows"') : html.index('id="time"')]
    assert "723 rows" in seen.text and rows.count('class="share"') == 4 and "does not add up" not in seen.text
    assert "does not add up" in page(tmp_path, replace(sample(), flow={**flow, "dev": 59}))[1].text

"""Negative controls break what they say they break, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from understudy.config import Config, ServiceConfig, SourceConfig
from understudy.core.records import Example, read_examples, write_jsonl
from understudy.data.controls import sabotage
from understudy.errors import ConfigError, DataError
from understudy.pipelines import Bound, lifecycle


def examples(count: int) -> list[Example]:
    return [
        Example(
            f"e{i}",
            [
                {"role": "user", "content": f"Room {i} is blue.\n\nQuestion: Which room is blue?"},
                {"role": "assistant", "content": f"Room {i}."},
            ],
            {"context": f"Room {i} is blue.", "question": "Which room is blue?"},
        )
        for i in range(count)
    ]


def broken(tmp_path: Path, control: str) -> list[Example]:
    write_jsonl(tmp_path / "in.jsonl", examples(20))
    ledger = sabotage(control, [tmp_path / "in.jsonl"], tmp_path / "out")
    assert ledger.balanced and ledger.rows_out == 20
    return read_examples(tmp_path / "out" / "train.jsonl")


def test_shuffled_answers_gives_every_prompt_a_foreign_answer(tmp_path: Path) -> None:
    found = broken(tmp_path, "shuffled_answers")
    assert [e.prompt for e in found] == [e.prompt for e in examples(20)]
    assert all(a.answer != b.answer for a, b in zip(found, examples(20), strict=True))
    assert sorted(str(e.answer) for e in found) == sorted(str(e.answer) for e in examples(20))


def test_blanked_contexts_leaves_question_and_answer(tmp_path: Path) -> None:
    found = broken(tmp_path, "blanked_contexts")
    assert {e.prompt[0]["content"] for e in found} == {"Question: Which room is blue?"}
    assert [e.answer for e in found] == [e.answer for e in examples(20)]


@pytest.mark.parametrize("control", ["shuffled_answers", "blanked_contexts"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_control_that_changes_nothing_is_refused(tmp_path: Path, control: str, count: int) -> None:
    same = [Example(f"e{i}", [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "Yes."}])
            for i in range(count)]  # fmt: skip
    write_jsonl(tmp_path / "in.jsonl", same)
    with pytest.raises(DataError, match=f"CONTROL_NO_EFFECT.*{control}.*none of the {count} "):
        sabotage(control, [tmp_path / "in.jsonl"], tmp_path / "out")


def config(**more: object) -> Config:
    service = ServiceConfig()
    values: dict[str, object] = {"teacher": service, "judge": service, **more}
    sources = [SourceConfig(path="a.jsonl")]
    return Config(version=1, name="x", sources=sources, coverage=SourceConfig(path="c.jsonl"), **values)  # type: ignore[arg-type]


def test_each_control_changes_the_plan_where_it_says() -> None:
    plain = {s.name: s for s in lifecycle(config(), Bound()).steps}
    for control, stage, key, value in (
        ("untrained_adapter", "train-1", "max_steps", 0),
        ("shuffled_answers", "sabotage-1", "control", "shuffled_answers"),
        ("blanked_contexts", "sabotage-2", "control", "blanked_contexts"),
    ):
        steps = {s.name: s for s in lifecycle(config(), Bound(), control).steps}
        assert steps[stage].config[key] == value
        assert steps["train-1"].fingerprint != plain["train-1"].fingerprint
        assert steps["split"].fingerprint == plain["split"].fingerprint
        assert steps["gate"].config["control"] == control
    wrong = {s.name: s for s in lifecycle(config(), Bound(), "wrong_teacher").steps}
    assert wrong["synthesize-1"].config["teacher"]["wrong_rate"] == 0.5


def test_unknown_control_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="shuffled_answers"):
        lifecycle(config(), Bound(), "nonsense")


def test_wrong_teacher_needs_the_simulated_one() -> None:
    real = ServiceConfig(provider="openai", base_url="http://127.0.0.1:1/v1", model="m")
    with pytest.raises(ConfigError, match="simulated teacher"):
        lifecycle(config(teacher=real), Bound(), "wrong_teacher")


def test_rounds_after_the_target_may_be_skipped_only_when_a_target_is_set() -> None:
    from understudy.config import LoopConfig

    always = {s.name: s for s in lifecycle(config(), Bound()).steps}
    assert always["train-2"].skip_if is None
    aimed = {s.name: s for s in lifecycle(config(loop=LoopConfig(rounds=3, target=0.8)), Bound()).steps}
    assert aimed["train-3"].skip_if is not None and aimed["train-3"].skip_if.of.name == "score-dev-2"
    assert aimed["train-3"].skip_if.alias.name == "train-2"


def test_what_decides_on_rounds_moves_no_step_that_it_does_not_concern() -> None:
    """Another report column, more rounds or another budget must not train anything anew."""
    from understudy.config import LoopConfig, ServiceConfig

    def prints(**changes: object) -> dict[str, str]:
        return {s.name: s.fingerprint for s in lifecycle(config(**changes), Bound()).steps}

    before = prints()
    for changes in (
        {"service": ServiceConfig()},
        {"loop": LoopConfig(rounds=3)},
        {"loop": LoopConfig(rounds=2, compare_untargeted=False)},
    ):
        now = prints(**changes)
        moved = [
            n for n, f in before.items() if n in now and now[n] != f and n.startswith(("synth", "train", "score-dev"))
        ]
        assert [n for n in moved if n != "synthesize-untargeted" and "untargeted" not in n] == []
    # With more money a round that it had stopped may begin: its scores are looked at again, from cached replies.
    richer = {"loop": LoopConfig(rounds=2, budget=5.0)}, {"loop": LoopConfig(rounds=2, budget=50.0)}
    a, b = (prints(**r) for r in richer)
    assert (
        a["score-dev-1"] != b["score-dev-1"]
        and a["train-1"] == b["train-1"]
        and a["score-held-base"] == b["score-held-base"]
    )

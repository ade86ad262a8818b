"""Soft metrics from the judge's rubrics over real HTTP, and from a real transformers classifier in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_service import Reply, _close, chat, client, serving  # noqa: F401  `_close` is a fixture

from understudy.config import ClassifierConfig, ScoreConfig
from understudy.core.records import Example, read_jsonl, write_jsonl
from understudy.errors import ConfigError, DataError, IntegrityError, RemoteError
from understudy.evals.classifier import Classifier, locate
from understudy.evals.grades import Grades, grade, reader
from understudy.evals.judge import Failure
from understudy.evals.score import load_summary, score
from understudy.models.service import ServiceModel
from understudy.models.simulated import SimulatedService

RUBRICS = ["relevance", "completeness", "faithfulness", "acceptability", "sentiment"]
PASSAGE = "Ada Marlow teaches Optics on Monday in hall B2."


def example(i: int, reference: str | None = "Ada Marlow teaches Optics.") -> Example:
    turns = [{"role": "user", "content": f"{PASSAGE}\n\nQuestion: Who teaches Optics? ({i})"}]
    return Example(f"e{i}", turns + ([{"role": "assistant", "content": reference}] if reference else []), {})


def answered(folder: Path, texts: list[str]) -> Path:
    write_jsonl(
        folder / "answers.jsonl", [{"id": f"e{i}", "setting": "greedy", "text": t} for i, t in enumerate(texts)]
    )
    return folder


def values(folder: Path, metric: str) -> list[float]:
    return [row["values"].get(metric) for row in read_jsonl(folder / "scores.jsonl")]


@pytest.fixture
def simulated() -> Iterator[tuple[SimulatedService, ServiceModel]]:
    with SimulatedService() as service:
        yield service, client(service.base_url)


def fives(request: dict[str, Any], before: int) -> Reply:
    """5 under every rubric that is asked for, no JSON for an answer that says `break`."""
    text = request["messages"][-1]["content"]
    asked = json.loads(text.split("RUBRICS (JSON):\n")[1].split("\n")[0])
    if '"break' in text:
        return chat("Five stars!")
    return chat(json.dumps(dict.fromkeys(asked, 5) | {"reason": "fine"}))


def test_the_simulated_judge_tells_good_from_bad_under_every_rubric(
    simulated: tuple[SimulatedService, ServiceModel],
) -> None:
    service, model = simulated
    good, foreign, refusal, loop = (
        "Ada Marlow teaches Optics.",
        "Ben Stone teaches Chemistry in C7.",
        "I'm sorry.",
        "on on on on",
    )
    found = grade(model, RUBRICS, [(example(0), t) for t in (good, foreign, refusal, loop)])
    assert all(isinstance(f, Grades) and f.values.keys() == set(RUBRICS) for f in found)
    by = [f.values for f in found if isinstance(f, Grades)]
    assert by[0] == {"relevance": 5, "completeness": 5, "faithfulness": 5, "acceptability": 5, "sentiment": 3}
    assert by[1]["completeness"] <= 3 and by[1]["faithfulness"] <= 2
    assert by[2]["relevance"] == 1 and by[3]["acceptability"] == 1
    assert service.ledger.roles == {"judge": 4}  # one call per answer for all rubrics


def test_grades_become_scores_and_not_negative_follows_the_judges_sentiment(tmp_path: Path) -> None:
    prompts = [example(i) for i in range(3)]
    texts = ["It is Ada Marlow.", "This is awful.", ""]
    names = [*RUBRICS, "not_negative", "exact"]
    cfg = ScoreConfig(scorers=names, by=dict.fromkeys(RUBRICS, "judge"))  # type: ignore[arg-type]
    with serving(_both) as (server, url):
        ledger = score(cfg, answered(tmp_path, texts), prompts, tmp_path, judge_model=client(url))
    assert ledger.balanced
    assert values(tmp_path, "relevance") == [1, 1, 0] and values(tmp_path, "sentiment") == [5, 5, 3]
    assert values(tmp_path, "not_negative") == [1, 1, 1]  # by word list, the second would be negative
    assert load_summary(tmp_path)["greedy"]["sentiment"]["value"] == pytest.approx(13 / 3, abs=1e-6)
    assert len(server.requests) == 4  # two answers, one call for coverage and one for the rubrics each


def _both(request: dict[str, Any], before: int) -> Reply:
    if "RUBRICS (JSON)" in request["messages"][-1]["content"]:
        return fives(request, before)
    return chat('{"similarity": 90, "precision": 90, "reason": "r"}')


def test_an_open_task_is_graded_under_what_it_allows(tmp_path: Path) -> None:
    prompts = [Example("e0", [{"role": "user", "content": "Гороскоп для Овна"}], {})]
    cfg = ScoreConfig(scorers=["relevance", "completeness"], by={"relevance": "judge", "completeness": "judge"})
    with serving(fives) as (_, url):
        ledger = score(cfg, answered(tmp_path, ["Овнов ждёт удача."]), prompts, tmp_path, judge_model=client(url))
    row = next(read_jsonl(tmp_path / "scores.jsonl"))
    assert row["values"] == {"relevance": 1.0} and "no reference" in row["reasons"]["completeness"]
    assert ledger.notes == {"not_scored:completeness": 1, "not_scored:coverage": 1}


def test_few_failures_are_noted_and_many_are_an_unusable_judge() -> None:
    with serving(fives) as (_, url):
        few = grade(client(url), ["relevance"], [(example(i), "break" if i == 3 else f"fine {i}") for i in range(20)])
        assert [i for i, f in enumerate(few) if isinstance(f, Failure)] == [3]
        with pytest.raises(RemoteError, match="JUDGE_UNUSABLE.*2 of 20"):
            grade(client(url), ["relevance"], [(example(i), f"break {i}" if i < 2 else f"fine {i}") for i in range(20)])


@pytest.mark.parametrize("given", [[], {}, *({"relevance": x} for x in (0, 6, 2.5, True, None, "high", [5], "nan"))])
def test_what_is_no_grade_from_1_to_5_is_refused(given: Any) -> None:
    with pytest.raises(ValueError):
        reader(["relevance"])(given)


def test_grades_are_read_in_the_forms_that_judges_write() -> None:
    assert reader(["relevance", "sentiment"])({"relevance": "4", "sentiment": 5.0, "reason": "r"}) == Grades(
        {"relevance": 4, "sentiment": 5}, "r"
    )


def test_by_the_judge_needs_a_judge_and_a_listed_scorer(tmp_path: Path) -> None:
    cfg = ScoreConfig(scorers=["relevance"], by={"relevance": "judge"})
    with pytest.raises(ConfigError, match="JUDGE_MISSING"):
        score(cfg, answered(tmp_path, ["x"]), [example(0)], tmp_path)
    with pytest.raises(ValueError, match=r"not in `score.scorers`"):
        ScoreConfig(scorers=["exact"], by={"relevance": "judge"})


# A classifier


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real, randomly initialised two-layer classifier with the shipped base's tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForSequenceClassification

    from understudy.models.tiny import BASE_DIR

    folder = tmp_path_factory.mktemp("classifier")
    tokenizer = AutoTokenizer.from_pretrained(BASE_DIR, local_files_only=True)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, pad_token_id=tokenizer.pad_token_id,
        id2label={0: "bad", 1: "fair", 2: "good"}, label2id={"bad": 0, "fair": 1, "good": 2}, initializer_range=0.5,
    )  # fmt: skip
    Qwen2ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


TEXTS = ["Ada Marlow teaches Optics.", "on on on", "It is in hall B2, on Monday at noon, as every week.", "x"]


def by_hand(folder: Path, texts: list[tuple[str, ...]]) -> list[list[float]]:
    """Probabilities of each text alone, straight through transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    network: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [network(**tokenizer(*t, return_tensors="pt")).logits.softmax(-1)[0].tolist() for t in texts]


@pytest.mark.slow
def test_a_classifiers_label_is_the_score_and_its_labels_are_a_scale(model: Path) -> None:
    items = [(example(i), t) for i, t in enumerate(TEXTS)]
    wanted = by_hand(model, [(t,) for t in TEXTS])
    one = Classifier(ClassifierConfig(model=str(model), label="good"), Path(), "x").score(
        "acceptability", "share", items
    )
    assert [s.value for s in one] == pytest.approx([p[2] for p in wanted], abs=2e-4)
    scale = Classifier(ClassifierConfig(model=str(model)), Path(), "x").score("sentiment", "level", items)
    assert [s.value for s in scale] == pytest.approx([1 + 4 * (p[1] / 2 + p[2]) for p in wanted], abs=1e-3)
    assert len({s.value for s in one}) == len(TEXTS)


def test_a_classifier_of_relevance_reads_question_and_answer(model: Path) -> None:
    found = Classifier(ClassifierConfig(model=str(model), label="bad"), Path(), "x")
    scores = found.score("relevance", "share", [(example(7), TEXTS[0])])
    assert scores[0].value == pytest.approx(by_hand(model, [("Who teaches Optics? (7)", TEXTS[0])])[0][0], abs=2e-4)


def test_scores_by_a_classifier_need_no_network_and_come_out_equal_again(model: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(model)
    prompts = [example(i) for i in range(4)]
    cfg = ScoreConfig(
        scorers=["acceptability", "exact"], by={"acceptability": ClassifierConfig(model="models/mine", label="good")}
    )
    digests = set()
    for out in ("a", "b"):
        score(cfg, answered(tmp_path, TEXTS), prompts, tmp_path / out, project=tmp_path)
        digests.add((tmp_path / out / "scores.jsonl").read_bytes())
        assert all(0 < v < 1 for v in values(tmp_path / out, "acceptability"))
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("settings", "code", "error"),
    [
        ({"model": "./none"}, "MODEL_NOT_FOUND", ConfigError),
        ({"model": "one/two/three"}, "MODEL_NOT_FOUND", ConfigError),
        ({"model": "org/name"}, "HUB_UNPINNED", ConfigError),
        ({"model": "pickled"}, "PICKLE_REFUSED", IntegrityError),
        ({"model": "broken"}, "MODEL_UNREADABLE", DataError),
        ({"model": "good", "label": "excellent"}, "LABEL_UNKNOWN", ConfigError),
    ],
)
def test_a_model_that_cannot_score_is_refused(
    settings: dict[str, str], code: str, error: type[Exception], model: Path, tmp_path: Path
) -> None:
    for name, file in (("pickled", "pytorch_model.bin"), ("broken", "model.safetensors")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(b"\x80\x04]")
    (tmp_path / "good").symlink_to(model)
    with pytest.raises(error, match=code):
        Classifier(ClassifierConfig(**settings), tmp_path, "score.by.acceptability")


def test_a_hub_id_is_read_at_its_commit_only() -> None:
    pinned = ClassifierConfig(model="org/name", revision="a" * 40)
    assert locate(pinned, Path("/nowhere"), "x") == ("org/name", {"revision": "a" * 40})
    with pytest.raises(ValueError):
        ClassifierConfig(model="org/name", revision="main")

"""Prompt templates as files of the project: what they must hold, that the run binds them, and who is asked in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_judge_score import EXAMPLES, grades, right
from test_service import _close, chat, client, serving  # noqa: F401  `_close` is a fixture
from test_synthesize import CFG, DOCUMENTS, SEEDS, good
from thread import make_tiny, one_line, understudy

from understudy.core.records import digest, read_examples
from understudy.data.synthesis import requests
from understudy.data.synthesis.cells import Cell
from understudy.data.synthesis.material import Material
from understudy.data.synthesis.quota import Quota
from understudy.data.synthesis.synthesize import synthesize
from understudy.errors import ConfigError, DataError
from understudy.evals.judge import Worded, judge
from understudy.models.template import Template
from understudy.project import Project
from understudy.promptfiles import PROMPTS, digests, template

OWN = "Frage: $question\nRichtig: $reference\nAntwort: ${answer} kostet 5 $$\nANSWER (JSON):\n$answer\n"


def say(folder: Path, settings: str) -> None:
    with open(folder / "understudy.yaml", "a") as f:
        f.write(settings)


def test_blocks_are_json_in_their_places_and_never_read_as_placeholders() -> None:
    made = Template(OWN, "x", ("question", "reference", "answer"))
    text = made.fill(question='a "$answer"\nb', reference=None, answer=["ж"], unused=1)
    assert text.split("\n")[:3] == ['Frage: "a \\"$answer\\"\\nb"', "Richtig: null", 'Antwort: ["ж"] kostet 5 $']


@pytest.mark.parametrize(
    ("text", "code", "where", "seen"),
    [
        (OWN + "costs $5", "TPL_SYNTAX", "own.txt:6", "no name follows"),
        (OWN + "$Answer", "TPL_UNDEFINED", "own.txt:6", r"did you mean \$answer"),
        (OWN + "\n${secret}", "TPL_UNDEFINED", "own.txt:7", r"\$question, \$reference"),
        ("$question", "TPL_INCOMPLETE", "own.txt", r"\$reference, \$answer"),
        (" \n", "TPL_SYNTAX", "own.txt", "empty"),
    ],
)
def test_what_no_request_could_be_made_of_is_refused_with_its_line(text: str, code: str, where: str, seen: str) -> None:
    with pytest.raises(ConfigError, match=rf"{code}\] {where}: .*{seen}"):
        Template(text, "own.txt", ("question", "reference", "answer"))


@pytest.mark.parametrize(("data", "seen"), [(OWN.encode("utf-16"), "UTF-8 at byte 1"), (b"x" * 300_000, "300,000")])
def test_a_file_that_is_no_template_is_refused(tmp_path: Path, data: bytes, seen: str) -> None:
    (tmp_path / "own.txt").write_bytes(data)
    with pytest.raises(ConfigError, match=rf"TPL_SYNTAX\] own\.txt: .*{seen}"):
        template("judge", "own.txt", tmp_path)


@pytest.mark.parametrize("name", PROMPTS)
def test_the_shipped_templates_are_sound_and_a_copy_is_the_same(name: str, tmp_path: Path) -> None:
    shipped = template(name, None, tmp_path)
    (tmp_path / "copy.txt").write_bytes(b"\xef\xbb\xbf" + shipped.text.replace("\n", "\r\n").encode())
    copy = template(name, "copy.txt", tmp_path)
    assert copy.text == shipped.text and copy.digest == shipped.digest == digest(shipped.text)


def test_a_template_that_moved_after_the_run_was_bound_is_refused(tmp_path: Path) -> None:
    make_tiny(tmp_path / "p")
    (tmp_path / "p" / "own.txt").write_text(OWN)
    say(tmp_path / "p", "score: {prompt: own.txt}\n")
    project = Project(tmp_path / "p")
    bound = digests(project.config, project.root)
    before = project.identity(project.bind(), None)
    assert template("judge", "own.txt", project.root, bound=bound).text == OWN
    (tmp_path / "p" / "own.txt").write_text(OWN + "!")
    with pytest.raises(DataError, match=r"FILE_CHANGED\] score\.prompt"):
        template("judge", "own.txt", project.root, bound=bound)
    assert project.identity(project.bind(), None) != before


def test_the_command_writes_what_check_accepts_and_overwrites_nothing(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "p")
    (folder / "prompts").mkdir()
    (folder / "prompts" / "judge.txt").write_text(OWN)
    done = understudy("prompts", "-C", str(folder))
    assert done.returncode == 0 and "score.prompt: prompts/judge.txt" in done.stdout
    assert (folder / "prompts" / "judge.txt").read_text() == OWN
    assert (folder / "prompts" / "synthesize.txt").read_text() == requests.PROMPT.read_text()
    settings = "score: {prompt: prompts/judge.txt}\nsynthesize: {prompt: prompts/synthesize.txt}\n"
    say(folder, settings)
    assert understudy("check", "-C", str(folder)).returncode == 0
    (folder / "prompts" / "synthesize.txt").write_text("Write $count of $documnet")
    line = one_line(understudy("check", "-C", str(folder)), "TPL_UNDEFINED", 2)
    assert "prompts/synthesize.txt:1" in line and "$document" in line
    (folder / "prompts" / "synthesize.txt").unlink()
    line = one_line(understudy("check", "-C", str(folder)), "PROMPT_NOT_FOUND", 2)
    assert "synthesize.prompt" in line and "prompts/synthesize.txt" in line


def test_the_judge_is_asked_in_the_words_of_the_template() -> None:
    seen: list[str] = []

    def script(request: dict[str, Any], before: int) -> Any:
        seen.append(request["messages"][-1]["content"])
        return grades(request, before)

    with serving(script) as (_, url):
        worded = Worded(client(url), Template(OWN, "own.txt", ("question", "reference", "answer")))
        verdicts = judge(worded, [(e, right(e)) for e in EXAMPLES[:3]])
    assert len(verdicts) == 3 and all(text.startswith("Frage: ") for text in seen)


def test_rows_know_the_template_that_they_were_asked_with(tmp_path: Path) -> None:
    text = requests.PROMPT.read_text("utf-8").replace("You write training examples", "Schreibe Beispiele")
    own = Template(text, "own.txt", requests.NEEDED, requests.OPTIONAL)

    def script(request: dict[str, Any], before: int) -> Any:
        assert request["messages"][-1]["content"].startswith("Schreibe Beispiele")
        return chat(json.dumps({"examples": [good(request)]}))

    with serving(script) as (_, url):
        material = Material(SEEDS, DOCUMENTS, template=own)
        synthesize(CFG, client(url), material, quota=Quota({Cell("who"): 8}), round=1, out=tmp_path)
    rows = read_examples(tmp_path / "train.jsonl")
    assert len(rows) == 8 and {e.meta["template"] for e in rows} == {own.digest}
    assert len({e.meta["prompt_hash"] for e in rows}) == 8

"""Bad input as a user meets it: the command line over the catalogue of bad inputs, numbered by its rows.

What stops a run costs one line, the catalogued exit status and not a byte of the input; what does not stop it costs
one row, which the store keeps with place and reason.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from thread import TINY, make_tiny, one_line, understudy

from understudy.data.chat import _tokenizers as open_tokenizer
from understudy.errors import IntegrityError
from understudy.models.tiny import BASE_DIR

SOURCE = "{path: data/rows.jsonl, fields: {prompt: q, response: a}}"
NEXT = TINY.count("\n") + 1  # the line of what is written behind TINY


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_tiny(tmp_path)


def given(folder: Path) -> dict[str, Any]:
    """What the user wrote: size and time of each file, and the bytes of small ones."""
    made = ("runs", "store", "cache", "registry")
    paths = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
    files = {str(name): (path, path.stat()) for name, path in paths.items() if name.parts[0] not in made}
    return {
        name: (stat.st_size, stat.st_mtime_ns, path.read_bytes() if stat.st_size < 100_000 else b"")
        for name, (path, stat) in files.items()
    }


def refused(folder: Path, code: str, status: int, *args: str, **variables: str) -> str:
    """The one line of a command that must stop without touching what the user wrote."""
    before = given(folder)
    result = understudy(*args, "-C", str(folder), timeout_s=120, **variables)
    line = one_line(result, code, status)
    assert re.fullmatch(r"error\[[A-Z0-9_]+\] \S.*: \S.*", line) and result.stdout == ""
    assert given(folder) == before
    return line


def bind(folder: Path) -> str:
    result = understudy("plan", "--bind", "-C", str(folder))
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def step(folder: Path, name: str, plan: str) -> str:
    """What `step` prints: state, name and content digest."""
    result = understudy("step", name, "--plan", plan, "-C", str(folder))
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def artifact(folder: Path, name: str, file: str) -> list[dict[str, Any]]:
    """Rows of a file of a step's only artifact."""
    (path,) = folder.glob(f"store/{name}/*/{file}")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# Rows 1 to 13, 16 and 17: the configuration

KEY = "sk-" + "a1" * 12
# Content, code, what the line must hold; rows 9 and 13 exit with 6, all others with 2.
CONFIGS: dict[str, tuple[str | bytes, str, list[str]]] = {
    "2 empty": ("", "CFG_EMPTY", ["understudy init"]),
    "2 comments": ("# version: 1\n\n# name: x\n", "CFG_EMPTY", ["understudy init"]),
    "2 dashes": ("---\n", "CFG_EMPTY", ["understudy init"]),
    "3 indent": (f"{TINY}train:\n    epochs: 1\n  seed: 2\n", "CFG_SYNTAX", [f":{NEXT + 2}:3", "seed: 2"]),
    "3 tab": (f"{TINY}train:\n\tepochs: 1\n", "CFG_SYNTAX", [f":{NEXT + 1}:1", "epochs: 1"]),
    "3 quote": (f"{TINY}base: {{path: 'tiny}}\n", "CFG_SYNTAX", [f":{NEXT}:14", "base: {path: 'tiny}"]),
    "4 duplicate": (f"{TINY}name: other\n", "CFG_DUP_KEY", [f":{NEXT}:1", "first on line 3"]),
    "5 section": (f"{TINY}trian: {{epochs: 1}}\n", "CFG_UNKNOWN_KEY", [f":{NEXT}:1", "`trian`", "`train`"]),
    "5 setting": (f"{TINY}train: {{epoch: 1}}\n", "CFG_UNKNOWN_KEY", ["`train.epoch`", "`epochs`"]),
    "6 quoted number": (f"{TINY}train: {{learning_rate: '0.1'}}\n", "CFG_TYPE", ['"0.1"', "a number"]),
    "6 yes": (f"{TINY}clean: {{strip_markup: yes}}\n", "CFG_TYPE", ['"yes"', "write true"]),
    "6 octal": (f"{TINY}split: {{seed: 010}}\n", "CFG_TYPE", [f":{NEXT}:9", "given 010"]),
    "6 clock": (f"{TINY}split: {{seed: 12:30}}\n", "CFG_TYPE", ['"12:30"', "an integer"]),
    "7 zero": (f"{TINY}train: {{learning_rate: 0}}\n", "CFG_RANGE", ["learning_rate", "above 0"]),
    "7 not a number": (f"{TINY}train: {{learning_rate: .nan}}\n", "CFG_RANGE", ["learning_rate", ".nan"]),
    "7 overflow": (f"{TINY}train: {{learning_rate: 1e400}}\n", "CFG_RANGE", ["learning_rate", "1e400"]),
    "7 shares": (f"{TINY}split: {{validation: 0.6, test: 0.6}}\n", "CFG_RANGE", ["split", "1.2"]),
    "8 aliases": ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n", "CFG_LIMIT", [":1:4"]),
    "8 nesting": (f"{TINY}size: {'[' * 10_000}", "CFG_LIMIT", [f":{NEXT}:"]),
    "9 object": (f"{TINY}size: !!python/object/apply:os.mkdir [canary]\n", "CFG_TAG", [f":{NEXT}:7", "python/object"]),
    "10 UTF-16": (TINY.encode("utf-16"), "CFG_ENCODING", ["UTF-16", "offset 0"]),
    "10 cp1251": (TINY.encode() + "# курс\n".encode("cp1251"), "CFG_ENCODING", ["0xea", f"offset {len(TINY) + 2}"]),
    "10 NUL": (TINY.encode() + b"size: x\0\n", "CFG_ENCODING", ["U+0000", f"offset {len(TINY) + 7}"]),
    "13 key": (f"{TINY}judge: {{api_key: {KEY}}}\n", "SECRET_IN_CONFIG", [f":{NEXT}:9", "${env:NAME}"]),
    "13 password": (
        TINY.replace(SOURCE, f"{{kind: sql, url: 'pg://u:{KEY}@h/d', query: q}}"),
        "SECRET_IN_CONFIG",
        [":5:", "pg://u:***@h/d", "${env:NAME}"],
    ),
    "13 comment": (f"{TINY}# was {KEY}\n", "SECRET_IN_CONFIG", [f":{NEXT}:7", "${env:NAME}"]),
    "16 newer": (TINY.replace("version: 1", "version: 2"), "CFG_VERSION", [":2:1", "version 2", "version 1"]),
    "17 twice": (TINY.replace(SOURCE, f"{SOURCE}\n  - {SOURCE}"), "PATH_CONFLICT", [":6:", "data/rows.jsonl"]),
    "17 output": (TINY.replace("data/rows", "store/rows"), "PATH_CONFLICT", [":5:", "store/rows.jsonl"]),
    "17 loop": (TINY.replace("rows.jsonl", "loop.jsonl"), "PATH_CONFLICT", [":5:", "link"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_configuration_gets_one_line(project: Path, name: str) -> None:
    content, code, says = CONFIGS[name]
    (project / "data" / "loop.jsonl").symlink_to("loop.jsonl")
    file = project / "understudy.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refused(project, code, 6 if code in ("CFG_TAG", "SECRET_IN_CONFIG") else 2, "check")
    assert line.startswith(f"error[{code}] {file}")
    assert [text for text in says if text not in line] == [] and KEY not in line
    assert {p.name for p in project.iterdir()} == {"data", "understudy.yaml"}


def test_a_folder_or_a_gigabyte_is_no_configuration(project: Path) -> None:
    file = project / "understudy.yaml"
    os.truncate(file, 2**30)
    assert str(2**30) in refused(project, "CFG_LIMIT", 2, "check")
    file.unlink()
    file.mkdir()
    assert str(file) in refused(project, "CFG_NOT_FILE", 2, "check")


def obey_modes() -> None:
    """Take from a child what lets root read every file: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    drop_from_bounding_set = 24
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def test_an_unreadable_configuration_is_denied(project: Path) -> None:
    file = project / "understudy.yaml"
    file.chmod(0)
    before = obey_modes if os.geteuid() == 0 and sys.platform == "linux" else None
    if subprocess.run(["cat", file], capture_output=True, preexec_fn=before).returncode == 0:
        pytest.skip("this user reads every file")
    command = [sys.executable, "-m", "understudy", "check", "-C", str(project)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=before)
    assert str(file) in one_line(result, "CFG_DENIED", 2)


def test_a_mark_windows_line_ends_and_yaml_1_2_numbers_are_read(project: Path) -> None:
    text = TINY + "train: {learning_rate: 1e-4}\n"
    (project / "understudy.yaml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    values = understudy("plan", "--values", "-C", str(project))
    assert values.returncode == 0, values.stderr
    assert f"train.learning_rate = 0.0001  (understudy.yaml:{NEXT})" in values.stdout.splitlines()


def test_an_empty_variable_is_named(project: Path) -> None:
    judge = "judge: {provider: openai, base_url: 'http://127.0.0.1:9/v1', model: m, api_key: '${env:MY_JUDGE_KEY}'}\n"
    (project / "understudy.yaml").write_text(TINY + judge)
    assert "MY_JUDGE_KEY" in refused(project, "ENV_MISSING", 2, "check", MY_JUDGE_KEY="")


# Rows 14, 15 and 19: plans and processes


def test_a_plan_whose_steps_need_each_other_is_refused(project: Path) -> None:
    path = Path(bind(project))
    edited, plan = path.with_name("edited.json"), json.loads(path.read_text())
    clean = next(s for s in plan["steps"] if s["name"] == "clean")
    for needed in ("dedupe", "clean"):
        clean["inputs"] = {"corpus": needed}
        edited.write_text(json.dumps(plan))
        line = refused(project, "DAG_CYCLE", 2, "step", "collect", "--plan", str(edited))
        assert f"clean > {needed}" in line


@pytest.mark.slow
def test_a_bound_plan_keeps_its_configuration(project: Path) -> None:
    plan = bind(project)
    (project / "understudy.yaml").write_text(TINY + "clean: {min_chars: 2}\n")
    for name in ("collect", "clean"):
        assert step(project, name, plan).startswith(f"ran {name}")
    assert (Path(plan).parent / "understudy.yaml").read_text() == TINY
    explained = understudy("explain", "clean", "-C", str(project)).stdout
    assert "config min_chars = 1" in explained and "rows 40 in, 40 out" in explained
    now = understudy("plan", "--why", "-C", str(project)).stdout
    assert "done collect " in now and "config min_chars: 1 > 2" in now


def test_a_second_run_is_told_the_owner_and_a_dead_owner_holds_nothing(project: Path) -> None:
    lock = project / "runs" / ".lock"
    command = [sys.executable, "-m", "understudy", "run", "--quiet", "-C", str(project)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as owner:
        try:
            deadline = time.monotonic() + 60
            while not (lock.is_file() and f'"pid": {owner.pid},' in lock.read_text()):
                assert owner.poll() is None and time.monotonic() < deadline
                time.sleep(0.005)
            owner.send_signal(signal.SIGSTOP)
            since = json.loads(lock.read_text())["since"]
            line = refused(project, "BUSY", 75, "run", "--quiet")
        finally:
            owner.kill()
    assert f"pid {owner.pid} " in line and socket.gethostname() in line and since in line
    bind(project)


# Rows 21, 22, 24, 30, 35, 45 and 46: data that stops a run before it trains


def rows(*pairs: tuple[Any, Any]) -> bytes:
    return b"".join(json.dumps({"q": q, "a": a}).encode() + b"\n" for q, a in pairs)


STOPS: dict[str, tuple[str, bytes, str, list[str]]] = {
    "21 empty": ("rows.jsonl", b"", "DATA_EMPTY", []),
    "21 blank": ("rows.csv", b"\n \r\n\t\n", "DATA_EMPTY", []),
    "22 header only": ("rows.csv", b"q,a\n", "DATA_EMPTY", []),
    "24 UTF-16": ("rows.csv", "q,a\nx,y\n".encode("utf-16"), "TEXT_ENCODING", ["UTF-16"]),
    "30 types": ("rows.jsonl", rows(("x", "1"), ("y", 2), ("z", "3")), "SCHEMA_TYPE", ["'a'", ":1", ":2"]),
    "35 delimiter": ("rows.csv", b"q;a\nx, y;z\nu;v\n", "CSV_DELIMITER", ["';'"]),
    "45 one row": ("rows.jsonl", rows(("x", "y")), "SPLIT_TOO_SMALL", ["1 examples"]),
    "45 two rows": ("rows.jsonl", rows(("x", "y"), ("u", "v")), "SPLIT_TOO_SMALL", ["2 examples"]),
    "46 twins": ("rows.jsonl", rows(*(("x", str(i)) for i in range(20))), "SPLIT_EMPTY", ["train"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STOPS)
def test_bad_data_stops_before_training(project: Path, name: str) -> None:
    file, data, code, says = STOPS[name]
    (project / "data" / "rows.jsonl").unlink()
    (project / "data" / file).write_bytes(data)
    (project / "understudy.yaml").write_text(TINY.replace("rows.jsonl", file))
    line = refused(project, code, 3, "run", "--quiet")
    assert [text for text in says if text not in line] == []
    split = code.startswith("SPLIT")
    assert split or f"data/{file}" in line
    made = {p.parent.parent.name for p in project.glob("store/*/*/artifact.json")}
    assert made - {"base"} == ({"collect", "clean", "dedupe"} if split else set())
    assert not any((project / "store" / ".tmp").iterdir())


BASES = {
    "empty": ("model.safetensors", b""),
    "text": ("model.safetensors", b"version https://git-lfs.github.com/spec/v1"),
    "a list": ("model.safetensors", b"\x02\0\0\0\0\0\0\0[]"),
    "cut": ("model.safetensors", (BASE_DIR / "model.safetensors").read_bytes()[:-10]),
    "settings": ("tokenizer_config.json", b"{"),
}


@pytest.mark.parametrize("name", BASES)
def test_a_damaged_base_is_refused_before_anything_runs(project: Path, name: str) -> None:
    file, data = BASES[name]
    shutil.copytree(BASE_DIR, project / "base")
    (project / "base" / file).write_bytes(data)
    (project / "understudy.yaml").write_text(TINY + "base: {path: base}\n")
    for command in ("check", "run"):
        assert file in refused(project, "BASE_CORRUPT", 6, command)
    assert not (project / "store").exists()


def test_a_tokenizer_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": 7}')
    with pytest.raises(IntegrityError, match=r"BASE_CORRUPT\] tokenizer\.json: no tokenizer"):
        open_tokenizer(tmp_path)


@pytest.mark.slow
def test_a_mended_project_goes_on_and_reuses_finished_steps(project: Path) -> None:
    pairs = project / "data" / "pairs.jsonl"
    # Other questions than the rows': those that repeat a pair would not train.
    told = [{"q": f"Name the capital of country number {i * 7919}.", "a": f"Town {i * 104729}"} for i in range(40)]
    good = "".join(json.dumps(pair) + "\n" for pair in told).encode()
    pairs.write_bytes(b"{\n" * 7 + good)
    coverage = TINY + f"coverage: {SOURCE}\n".replace("rows", "pairs").replace("fields", "max_bad_rows: 5, fields")
    (project / "understudy.yaml").write_text(coverage)

    line = refused(project, "BAD_ROWS", 3, "run", "--quiet")
    assert "7 bad rows" in line and re.findall(r"pairs\.jsonl:(\d) ROW_JSON", line) == list("12345")
    pairs.write_bytes(good)
    planned = understudy("plan", "--list", "-C", str(project)).stdout
    assert [f"done {name} " in planned for name in ("collect", "dedupe", "collect-coverage")] == [True, True, False]

    again = understudy("run", "--quiet", "-C", str(project))
    assert again.returncode == 3 and "error[SPLIT_TOO_SMALL]" in again.stderr and "40 coverage pairs" in again.stderr
    (project / "understudy.yaml").write_text(coverage + "split: {seed_pairs: 10, dev_pairs: 10}\n")
    plan = bind(project)
    assert step(project, "collect-coverage", plan).startswith("cached collect-coverage")
    assert step(project, "split", plan).startswith("ran split")
    files = ("train", "validation", "seed", "dev")
    assert [len(artifact(project, "split", f"{file}.jsonl")) for file in files] == [36, 4, 10, 10]


# Rows 23 to 35 and 44: data that costs its own row


def ok(mark: str) -> bytes:
    """A good row; the mark keeps it apart from the other files' rows."""
    return json.dumps({"q": f"question {mark}", "a": f"answer {mark}"}).encode()


def chat(*turns: tuple[str, str]) -> bytes:
    return json.dumps({"m": [{"role": role, "content": content} for role, content in turns]}).encode() + b"\n"


CP1251, KOI8 = (json.dumps({"q": "привет всем", "a": "да"}, ensure_ascii=False).encode(c) for c in ("cp1251", "koi8-r"))
UTF16 = "".join(f'{{"q": "привет {i}", "a": "да"}}\n' for i in range(2)).encode("utf-16")
USER, BOT, SYSTEM = ("user", "x"), ("assistant", "y"), ("system", "z")
# A file's bytes, its rejects as {place: (reason, what the detail must hold)}, and how many of its rows are kept.
MESS: dict[str, tuple[bytes, dict[str, tuple[str, ...]], int]] = {
    "data/23-mark.jsonl": (b"\xef\xbb\xbf" + ok("23a") + b"\n" + ok("23b") + b"\n", {}, 2),
    "data/23-crlf.jsonl": (ok("23c") + b"\r\n" + ok("23d") + b"\r\n", {}, 2),
    "data/23-cr.jsonl": (ok("23e") + b"\r" + ok("23f") + b"\r", {}, 2),
    "data/23-no-newline.csv": (b"q,a\n23g,x\n23h,y", {}, 2),
    "data/24-cp1251.jsonl": (
        ok("24a") + b"\n" + CP1251 + b"\n" + ok("24b") + b"\n",
        {":2": ("TEXT_ENCODING", f"at byte {len(ok('24a')) + 8} ", "cp1251")},
        2,
    ),
    "data/24-koi8-r.jsonl": (KOI8 + b"\n" + ok("24c") + b"\n", {":1": ("TEXT_ENCODING", "at byte 7 ", "KOI8-R")}, 1),
    "data/24-stray.csv": (b"q,a\n24d,caf\xe9\n24e,x\n", {":row 1": ("TEXT_ENCODING", "0xe9 at byte 11 ")}, 1),
    "data/24-utf-16.jsonl": (UTF16, {":1": ("TEXT_ENCODING", "UTF-16"), ":2": ("TEXT_ENCODING", "UTF-16")}, 0),
    "data/25-nul.jsonl": (
        ok("25a") + b'\n{"q": "25\0", "a": "x"}\n{"q": "25\\u0000b\\u0001\\u009f", "a": "x"}\n{"q": "25\x01"}\n',
        {":2": ("TEXT_NUL", f"byte {len(ok('25a')) + 10}"), ":4": ("ROW_JSON",)},
        2,
    ),
    "data/27-cut.jsonl": (ok("27a") + b'\n{"q": "27b", "a": "x', {":2": ("ROW_TRUNCATED",)}, 1),
    "data/27-cut.csv": (b"q,a\n27c,x\n27d", {":row 2": ("ROW_TRUNCATED",)}, 1),
    "data/27-cut.json": (b"[\n" + ok("27e") + b',\n{"q": "27f"', {":2": ("ROW_TRUNCATED",)}, 1),
    "data/28-glued.jsonl": (ok("28a") + ok("28b") + b"\n" + ok("28c") + b"\n", {":1": ("ROW_MULTI",)}, 1),
    "data/29-twice.jsonl": (b'{"q": "29a", "a": "x", "a": "y"}\n' + ok("29b"), {":1": ("ROW_DUP_KEY", "'a'")}, 1),
    "data/31-fields.jsonl": (
        b'{"q": "31a"}\n{"q": "31b", "a": null}\n{"q": "31c", "a": ""}\n{"q": "31d", "a": " \\t"}\n' + ok("31e"),
        {
            **{f":{row}": ("FIELD_MISSING", what) for row, what in ((1, "'a'"), (2, "null"))},
            **{f":{row}": ("FIELD_BLANK", "'a'") for row in (3, 4)},
        },
        1,
    ),
    "data/32-numbers.jsonl": (
        b'{"q": "32a", "n": NaN}\n{"q": "32b", "n": -Infinity}\n{"q": "32c", "n": %s}\n' % (b"7" * 40) + ok("32d"),
        {":1": ("NUM_NOT_FINITE",), ":2": ("NUM_NOT_FINITE",), ":3": ("NUM_RANGE", "40 digits")},
        1,
    ),
    "data/33-long.jsonl": (ok("33a") + b'\n{"q": "30 MB"}\n' + ok("33b"), {":2": ("ROW_TOO_LONG", "8000000")}, 2),
    "data/34-deep.jsonl": (b'{"q": %s%s}\n' % (b"[" * 10_000, b"]" * 10_000) + ok("34a"), {":1": ("ROW_DEPTH",)}, 1),
    "data/35-quotes.csv": (b'q,a\n35a,"x"y\n35b,5" disk\n', {":row 1": ("ROW_QUOTE",)}, 1),
    "data/35-ragged.csv": (
        b'q,a\n35c,x,y\n35d\n35e,"two\nlines"\n35f,x,y\n',
        {":row 1": ("ROW_RAGGED", "line 2"), ":row 2": ("ROW_RAGGED", "line 3"), ":row 4": ("ROW_RAGGED", "line 6")},
        1,
    ),
    "chats/44-shapes.jsonl": (
        b"".join(
            chat(*turns)
            for turns in (
                (SYSTEM, USER, BOT), (USER, ("robot", "x")), (SYSTEM, SYSTEM, USER, BOT), (USER, BOT, USER),
                (USER, ("assistant", " ")), (SYSTEM, USER),
            )
        ),
        {f":{row}": ("CHAT_SHAPE", f"turn {turn}") for row, turn in ((2, 1), (3, 1), (4, 2), (5, 1), (6, 1))},
        1,
    ),
}  # fmt: skip
MESSY = """
version: 1
name: messy
sources:
  - {path: 'data/*.jsonl', fields: {prompt: q, response: a}}
  - {path: 'data/*.json', fields: {prompt: q, response: a}}
  - {path: 'data/*.csv', fields: {prompt: q, response: a}}
  - {path: 'chats/*.jsonl', fields: {messages: m}}
gate: {metric: exact, bar: null, must_beat: []}
"""


@dataclass
class Mess:
    """A project of bad files after `step collect`."""

    folder: Path
    plan: str
    printed: str
    rejects: list[dict[str, Any]]
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def mess(tmp_path_factory: pytest.TempPathFactory) -> Mess:
    folder = tmp_path_factory.mktemp("mess")
    (folder / "understudy.yaml").write_text(MESSY)
    for name, (data, _, _) in MESS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data.replace(b"30 MB", b"x" * 30_000_000))
    before = given(folder)
    plan = bind(folder)
    printed = step(folder, "collect", plan)
    assert given(folder) == before
    return Mess(
        folder, plan, printed, artifact(folder, "collect", "rejects.jsonl"), artifact(folder, "collect", "rows.jsonl")
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", MESS)
def test_a_bad_row_is_set_aside_with_place_and_reason(mess: Mess, name: str) -> None:
    _, wanted, kept = MESS[name]
    found = {r["where"].removeprefix(name): r for r in mess.rejects if r["where"].startswith(f"{name}:")}
    assert {place: r["reason"] for place, r in found.items()} == {place: w[0] for place, w in wanted.items()}
    assert [text for place, w in wanted.items() for text in w[1:] if text not in found[place]["detail"]] == []
    assert sum(row["meta"]["source"] == name for row in mess.rows) == kept


def test_what_is_kept_is_normalised_and_noted(mess: Mess) -> None:
    turns = [[turn["content"] for turn in row["messages"]] for row in mess.rows]
    assert ["25b", "x"] in turns and ["35b", '5" disk'] in turns and ["35e", "two\nlines"] in turns
    shown = json.loads(understudy("show", "--json", "-C", str(mess.folder)).stdout)
    notes = shown["stages"][0]["notes"]
    assert {key: notes[key] for key in ("bom_removed", "crlf_lines", "cr_lines", "controls_removed")} == {
        "bom_removed": 1,
        "crlf_lines": 2,
        "cr_lines": 2,
        "controls_removed": 3,
    }
    assert notes["no_final_newline"] > 0


def test_every_reject_is_counted_and_the_step_is_reused(mess: Mess) -> None:
    reasons = Counter(r["reason"] for r in mess.rejects)
    assert reasons == Counter(reason for _, wanted, _ in MESS.values() for reason, *_ in wanted.values())
    explained = understudy("explain", "collect", "-C", str(mess.folder)).stdout
    assert f"rows {len(mess.rows) + len(mess.rejects)} in, {len(mess.rows)} out, rejected {{" in explained
    assert [reason for reason, count in reasons.items() if f"'{reason}': {count}" not in explained] == []
    assert mess.printed.startswith("ran collect ")
    assert step(mess.folder, "collect", mess.plan) == mess.printed.replace("ran", "cached")

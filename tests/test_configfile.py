"""`understudy.yaml`, row by row of the catalogue of bad inputs: every refusal is one line with code, place and fix."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy import configfile, yamlfile
from understudy.errors import UnderstudyError

BASE = "version: 1\nname: demo\nsources:\n  - path: data/a.jsonl\n"
OPENAI_KEY = "sk-" + "proj-" + "a1B2" * 8  # assembled, so that scanners of this repository stay quiet
DOCS = Path(__file__).parent.parent / "docs" / "configuration.md"
BEGIN, END = "<!-- reference: begin -->\n", "<!-- reference: end -->\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "understudy.yaml"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path) -> UnderstudyError:
    with pytest.raises(UnderstudyError) as caught:
        configfile.load(path)
    assert caught.value.line().count("\n") == 0 and caught.value.line().isprintable()
    return caught.value


def check(file: Path, content: str | bytes, code: str, place: str, *says: str, exit_code: int = 2) -> UnderstudyError:
    error = refused(write(file, content))
    assert (error.code, error.exit_code) == (code, exit_code), error
    assert error.where == f"{file}{place}", error
    for text in says:
        assert text in error.line()
    return error


# Rows 1 and 2: the file itself


def test_missing_folder_and_pipe_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    write(tmp_path / "plain", "")
    cases = {"none.yaml": "CFG_NOT_FOUND", "plain/x": "CFG_NOT_FOUND", ".": "CFG_NOT_FILE", "pipe": "CFG_NOT_FILE"}
    cases |= {"loop": "PATH_CONFLICT", "n" * 300: "PATH_NAME", "a\0b": "PATH_NAME"}
    for name, code in cases.items():
        error = refused(tmp_path / name)
        assert (error.code, error.exit_code) == (code, 2)
    assert str(tmp_path / "none.yaml") in refused(tmp_path / "none.yaml").line()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder everyone may enter, while this process is nobody: root reads mode 000."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = write(Path(folder) / "understudy.yaml", BASE)
        path.chmod(0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield path
        finally:
            if root:
                os.seteuid(0)


def test_unreadable_file_is_denied(unprivileged: Path) -> None:
    error = refused(unprivileged)
    assert (error.code, error.exit_code) == ("CFG_DENIED", 2)


@pytest.mark.parametrize("content", ["", "\n\n", "# only a comment\n", "---\n", "--- ~\n", "\ufeff", "---\n...\n"])
def test_empty_file_points_to_init(file: Path, content: str) -> None:
    check(file, content, "CFG_EMPTY", "", "understudy init")


# Rows 3 to 5: syntax and keys


@pytest.mark.parametrize(
    ("text", "place", "line"),
    [
        ("a:\n\tb: 1\n", ":6:1", "b: 1; indent with spaces"),
        ("clean: 1\n  dedupe: 2\n", ":6:9", "dedupe: 2"),
        ("register:\n  name: 'open\n", ":6:9", "name: 'open"),
        ("loop: [1\n", ":5:7", "loop: [1"),
        ('size: "\\UFFFFFFFF"\n', ":5:1", 'size: "'),
        ("---\nsize: 1\n", ":5:1", "second document"),
    ],
)
def test_syntax_shows_place_and_line(file: Path, text: str, place: str, line: str) -> None:
    check(file, BASE + text, "CFG_SYNTAX", place, line)


@pytest.mark.parametrize(
    "text", ["teacher:\n  api_key: 'hunter2\n", "teacher:\n  api_key: '\n  hunter2\n", "api_key: 'a\n'hunter2: [\n"]
)
def test_syntax_error_hides_a_secret(file: Path, text: str) -> None:
    assert "hunter2" not in refused(write(file, BASE + text)).line()


def test_directives_are_refused(file: Path) -> None:
    check(file, "%YAML 1.1\n---\n" + BASE, "CFG_SYNTAX", ":2:1", "directives")


@pytest.mark.parametrize("text", ["size: toy\nclean: {}\nsize: full\n", "size: toy\nclean: {}\n'size': toy\n"])
def test_duplicate_key_names_both_lines(file: Path, text: str) -> None:
    check(file, BASE + text, "CFG_DUP_KEY", ":7:1", "`size`", "line 5")


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("trian: {}\n", ":5:1", "did you mean `train`?"),
        ("train:\n  lora_rnak: 3\n", ":6:3", "`train.lora_rnak` is not a setting; did you mean `lora_rank`?"),
        ("dedupe: {zzz: 3}\n", ":5:10", "valid here: normalise"),
        ("coverage: {path: c, fields: {promt: p}}\n", ":5:30", "did you mean `prompt`?"),
        ("register_: {}\n", ":5:1", "did you mean `register`?"),
        ("<<: {size: toy}\n", ":5:1", "valid here"),
        ("имя: 1\n", ":5:1", "valid here"),
        ("trian: {}\nevil: {}\nsize: no\n", ":5:1", "(+2 more)"),
    ],
)
def test_unknown_key_suggests_the_nearest(file: Path, text: str, place: str, says: str) -> None:
    check(file, BASE + text, "CFG_UNKNOWN_KEY", place, says)


# Rows 6 and 7: types and ranges


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ('train:\n  learning_rate: "0.1"\n', ":6:3", 'train.learning_rate: given the text "0.1", wanted a number'),
        ("clean: {strip_markup: yes}\n", ":5:9", "write true"),
        ("clean: {strip_markup: 1}\n", ":5:9", "given the integer 1, wanted true or false"),
        ("split: {seed: 010}\n", ":5:9", "given 010"),
        ("split: {seed: -007}\n", ":5:9", "given -007"),
        ("split: {seed: 12:30}\n", ":5:9", 'given the text "12:30"'),
        ("split: {seed: 1_000}\n", ":5:9", 'given the text "1_000"'),
        ("split: {seed: 1.0}\n", ":5:9", "given the number 1.0, wanted an integer"),
        ("split: {seed: true}\n", ":5:9", "given the truth value true"),
        ("train:\n", ":5:1", "given nothing, wanted a mapping"),
        ("train: []\n", ":5:1", "given a list of 0"),
        ("serve: {host: 8}\n", ":5:9", "wanted text; quote it"),
        ("size: 3\n", ":5:1", "one of toy, small, full"),
        ("answer: {shots: [1, x]}\n", ":5:21", "answer.shots.1"),
        ("gate: {bar: high}\n", ":5:8", "or null"),
        ("[a]: 1\n", ":5:1", "as a key"),
    ],
)
def test_wrong_type_says_given_and_wanted(file: Path, text: str, place: str, says: str) -> None:
    check(file, BASE + text, "CFG_TYPE", place, says)


def test_quoted_number_is_told_to_lose_its_quotes(file: Path) -> None:
    check(file, BASE + "split: {seed: '7'}\n", "CFG_TYPE", ":5:9", "; remove the quotes")


def test_top_level_list_is_a_type_error(file: Path) -> None:
    check(file, "- version: 1\n", "CFG_TYPE", ":1:1", "given a list of 1")


@pytest.mark.parametrize("text", ["1e-4", "0.0001", "1.0E-4", "+1e-4", "0000.1e-3"])
def test_yaml_1_2_floats_are_numbers(file: Path, text: str) -> None:
    assert configfile.load(write(file, f"{BASE}train: {{learning_rate: {text}}}\n")).config.train.learning_rate == 1e-4


def test_yaml_1_2_words(file: Path) -> None:
    text = "answer: {seed: 0x1F}\nsplit: {seed: 0o17}\nclean: {strip_markup: False}\ngate: {bar: ~}\n"
    text += "serve: {host: yes}\n"
    config = configfile.load(write(file, BASE + text)).config
    assert (config.answer.seed, config.split.seed, config.clean.strip_markup, config.gate.bar) == (31, 15, False, None)
    assert config.serve.host == "yes"


@pytest.mark.parametrize("value", ["0", "-1", ".nan", ".inf", "-.inf", "1e400", "9" * 30, "9" * 5000])
def test_learning_rate_out_of_range(file: Path, value: str) -> None:
    check(file, f"{BASE}train:\n  learning_rate: {value}\n", "CFG_RANGE", ":6:3", "train.learning_rate: given")


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("split: {validation: 0.7, test: 0.5}\n", ":5:1", "validation + test is 1.2"),
        ("size: smal\n", ":5:1", "did you mean `small`?"),
        ("split: {seed: 100000001}\n", ":5:9", "at most 100,000,000"),
        ("register: {name: A b}\n", ":5:12", "matching"),
        ("coverage: {path: c, delimiter: ab}\n", ":5:21", 'given the text "ab"'),
        ("judge: {provider: mistrall}\n", ":5:9", "did you mean `mistral`?"),
        ("judge: {requests_per_minute: 0}\n", ":5:9", "at least 1"),
        ("judge: {price: {prompt: -1, completion: 2}}\n", ":5:17", "at least 0"),
        ("judge: {base_url: 'http://host:99999/v1'}\n", ":5:9", "https://host:8000/v1"),
        ("judge: {base_url: 127.0.0.1:8013/v1}\n", ":5:9", "https://host:8000/v1"),
        ("judge: {base_url: ftp://host/v1}\n", ":5:9", "https://host:8000/v1"),
    ],
)
def test_out_of_range_says_the_range(file: Path, text: str, place: str, says: str) -> None:
    check(file, BASE + text, "CFG_RANGE", place, says)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("version: 1\nname: a\n", ":1:1", "`sources` is missing"),
        ("version: 1\nname: a\nsources:\n  - fields: {}\n", ":4:5", "needs `path`"),
        (BASE + "teacher: {}\n", ":5:1", "needs a `coverage` set"),
        (BASE + "loop: {rounds: 2}\n", ":5:8", "needs a `teacher`"),
        (BASE + "judge: {provider: vertex}\n", ":5:1", "`vertex` needs `project`"),
        (BASE + "judge: {price: {prompt: 1}}\n", ":5:9", "`judge.price.completion` is missing"),
    ],
)
def test_missing_key(file: Path, text: str, place: str, says: str) -> None:
    check(file, text, "CFG_MISSING", place, says)


# Row 8: limits

HOSTILE = {
    "aliases": "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(500)),
    "flow": "a: " + "[" * 10_000,
    "braces": "{a: " * 10_000,
    "dashes": "- " * 10_000,
    "nodes": "".join(f"k{i}: 1\n" for i in range(12_000)),
    "sparse": None,
}
# Processor time: nothing here waits, and on a loaded machine wall time measured 25 times as long (load 12, 2 cores).
MEASURE = """
import json, resource, sys, time
from pathlib import Path
from understudy import configfile
from understudy.errors import UnderstudyError
out = {}
for path in map(Path, sys.argv[1:]):
    start = time.process_time()
    try: configfile.load(path)
    except UnderstudyError as e: out[path.name] = [e.code, e.exit_code, time.process_time() - start]
# On Linux ru_maxrss starts at the parent's size; VmHWM is this program's own.
status = Path("/proc/self/status")
if status.is_file():
    peak = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([out, peak]))
"""


def test_hostile_files_cost_a_second_and_100_mb_at_most(tmp_path: Path) -> None:
    for name, text in HOSTILE.items():
        path = write(tmp_path / name, text or "a: 1\n")
        if text is None:
            os.truncate(path, 2**30)
    command = [sys.executable, "-c", MEASURE, *(str(tmp_path / name) for name in HOSTILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    results, peak_bytes = json.loads(done.stdout)
    for name in HOSTILE:
        code, exit_code, seconds = results[name]
        assert (code, exit_code) == ("CFG_LIMIT", 2), name
        assert seconds < 1.0, (name, seconds)
    assert peak_bytes < 100e6


def test_anchor_is_refused_with_its_place(file: Path) -> None:
    check(file, BASE + "size: &s 1\n", "CFG_LIMIT", ":5:7", "anchors")


def test_fifty_levels_are_read(file: Path) -> None:
    check(file, BASE + "size: " + "[" * 49 + "]" * 49 + "\n", "CFG_TYPE", ":5:1")
    assert refused(write(file, BASE + "size: " + "[" * 60 + "]" * 60 + "\n")).code == "CFG_LIMIT"


# Rows 9 to 11: tags, encodings, look-alikes


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("size: !!python/object/apply:os.system [id]\n", ":5:7"),
        ("size: !!int 1\n", ":5:7"),
        ("size: ! x\n", ":5:7"),
        ("!!str size: 1\n", ":5:1"),
        ("size: !<tag:x> 1\n", ":5:7"),
        ("size: !e!x 1\n", ":5:7"),
        ("train: !x {}\n", ":5:8"),
    ],
)
def test_tags_are_refused(file: Path, text: str, place: str) -> None:
    check(file, BASE + text, "CFG_TAG", place, exit_code=6)


def test_bom_and_line_ends_are_accepted(file: Path) -> None:
    for text in ("\ufeff" + BASE, BASE.replace("\n", "\r\n"), BASE.replace("\n", "\r"), BASE.rstrip()):
        assert configfile.load(write(file, text)).config.name == "demo"
    check(file, "\ufeff" + BASE.replace("\n", "\r\n") + "split: {seed: x}\r\n", "CFG_TYPE", ":5:9")
    check(file, "\ufeffversion: 2\n", "CFG_VERSION", ":1:1")


@pytest.mark.parametrize(
    ("content", "place", "offset"),
    [
        (BASE.encode("utf-16"), ":1", 0),
        (BASE.encode("utf-16-le"), ":1", 1),
        (BASE.encode() + "# имя".encode("cp1251"), ":5", len(BASE) + 2),
        (BASE.encode() + "# имя".encode() + b"\0", ":5", len(BASE) + 8),
        ("\ufeffversion: \x07 1\n".encode(), ":1", 12),
    ],
)
def test_other_encodings_name_the_byte(file: Path, content: bytes, place: str, offset: int) -> None:
    error = check(file, content, "CFG_ENCODING", place)
    assert error.what.endswith(f"byte offset {offset}")
    assert ("looks like UTF-16" in error.what) is content.startswith((b"\xff\xfe", b"\xfe\xff"))


@pytest.mark.parametrize("escape", ["\\0", "\\ud800"])
def test_escaped_nul_and_surrogate(file: Path, escape: str) -> None:
    check(file, f'{BASE}serve: {{host: "a{escape}"}}\n', "CFG_ENCODING", ":5:15", "serve.host")


@pytest.mark.parametrize(
    ("key", "point"),
    [("sеed", "U+0435"), ("se\u202eed", "U+202E"), ("seed\u200b", "U+200B"), ("ѕіze", "U+0455"), ("ｓeed", "U+FF53")],
)
def test_confusable_key_prints_code_points(file: Path, key: str, point: str) -> None:
    check(file, f'{BASE}"{key}": 1\n', "CFG_CONFUSABLE", ":5:1", point)


# Rows 12 and 13: references and secrets


def test_references_are_listed(file: Path) -> None:
    text = "coverage: {kind: sql, url: 'pg://${env:USER}:${env:PW_1}@h/d', query: q}\njudge: {api_key: '${env:KEY}'}\n"
    config = configfile.load(write(file, BASE + text)).config
    assert configfile.env_references(config) == [
        ("coverage.url", "USER"),
        ("coverage.url", "PW_1"),
        ("judge.api_key", "KEY"),
    ]


@pytest.mark.parametrize(
    ("text", "place", "secret"),
    [
        ("judge:\n  api_key: hunter2\n", ":6:3", "hunter2"),
        ("judge: {api_key: 12345678}\n", ":5:9", "12345678"),
        ("judge: {api_key: 'x${env:K}'}\n", ":5:9", "x${"),
        ("coverage: {kind: sql, url: 'pg://u:hunter2@h/d', query: q}\n", ":5:23", "hunter2"),
        ("judge: {base_url: 'https://h/v1?api_key=hunter2'}\n", ":5:9", "hunter2"),
        (f"judge: {{model: {OPENAI_KEY}}}\n", ":5:9", OPENAI_KEY),
        (f"# {OPENAI_KEY}\n", ":5:3", OPENAI_KEY),
        ("answer: {shots: [AKIA" + "Z9" * 8 + "]}\n", ":5:18", "Z9Z9"),
        ("zzz: ghp_" + "a1" * 18 + "\n", ":5:1", "a1a1"),
        ("zzz: hf_" + "a1" * 17 + "\n", ":5:1", "a1a1"),
        ("zzz: AIza" + "a1" * 18 + "\n", ":5:1", "a1a1"),
        ("zzz: xoxb-" + "12" * 8 + "\n", ":5:1", "1212"),
        ("zzz: |\n  -----BEGIN RSA PRIVATE " + "KEY-----\n  MII\n", ":5:1", "MII"),
    ],
)
def test_literal_secret_is_refused_and_masked(file: Path, text: str, place: str, secret: str) -> None:
    error = check(file, BASE + text, "SECRET_IN_CONFIG", place, "***", exit_code=6)
    assert secret not in error.line()


def test_secrets_can_be_allowed_but_are_never_printed(file: Path) -> None:
    path = write(file, BASE + f"judge: {{api_key: hunter2, model: {OPENAI_KEY}}}\n")
    loaded = configfile.load(path, allow_secrets=True)
    assert loaded.config.judge and loaded.config.judge.api_key == "hunter2"
    write(file, BASE + f"judge: {{api_key: 12345678}}\nsize: {OPENAI_KEY}\n")
    with pytest.raises(UnderstudyError) as caught:
        configfile.load(path, allow_secrets=True)
    assert "12345678" not in caught.value.line() and OPENAI_KEY[8:] not in caught.value.line()


@pytest.mark.parametrize(
    "value",
    ["risk-assessment-2024-internationalization", "https://h:8080/v1", "postgresql://u:${env:PW}@h/d", "me@host"],
)
def test_harmless_values_are_no_secrets(value: str) -> None:
    assert yamlfile.masked(value) == value


# Rows 16 to 18: versions and paths


@pytest.mark.parametrize(("version", "says"), [("2", "a later release"), ("0", "no release")])
def test_other_version_is_refused(file: Path, version: str, says: str) -> None:
    check(file, f"version: {version}\nfuture: 1\n", "CFG_VERSION", ":1:1", says)


def test_version_must_be_there_and_be_1(file: Path) -> None:
    check(file, "name: a\n", "CFG_VERSION", ":1:1", "`version` is missing")
    for text in ("true", "1.0", "'1'", "~"):
        check(file, BASE.replace("1", text, 1), "CFG_TYPE", ":1:1", "wanted 1")


def test_same_source_twice(tmp_path: Path, file: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "a.jsonl", "{}")
    (tmp_path / "alias").symlink_to("data/a.jsonl")
    (tmp_path / "loop").symlink_to("loop")
    for again in ("data/a.jsonl", "./data//x/../a.jsonl", "alias", "data/*.jsonl", str(tmp_path / "data/a.jsonl")):
        check(file, f"{BASE}  - path: {again}\n", "PATH_CONFLICT", ":5:5", "already read by `sources.0`")
        check(file, f"{BASE}coverage:\n  path: {again}\n", "PATH_CONFLICT", ":6:3", "already read by `sources.0`")
    check(file, f"{BASE}coverage: {{path: loop}}\n", "PATH_CONFLICT", ":5:12", "leads to itself")
    for own in ("store", "runs", "cache", "registry"):
        check(file, f"{BASE}coverage: {{path: {own}/x.jsonl}}\n", "PATH_CONFLICT", ":5:12", "runs write to")
    check(file, f"{BASE}coverage: {{path: {'n' * 256}}}\n", "PATH_NAME", ":5:12", "255 bytes")


def test_a_relative_glob_passes_over_what_runs_write(tmp_path: Path, file: Path) -> None:
    for name in ("data/a.jsonl", "store/clean/1/rows.jsonl", "runs/run-0001/x.jsonl", "cache/x.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True)
        write(tmp_path / name, "{}")
    for pattern in ("**/*.jsonl", "./*/*.jsonl"):
        configfile.load(write(file, BASE.replace("data/a.jsonl", f"'{pattern}'")))


def test_one_database_may_give_two_queries(file: Path) -> None:
    sql = "  - {kind: sql, url: 'sqlite:///a.db', query: 'select %d'}\n"
    assert len(configfile.load(write(file, BASE + sql % 1 + sql % 2)).config.sources) == 3
    check(file, BASE + sql % 1 + sql % 1, "PATH_CONFLICT", ":6:40")


@pytest.mark.parametrize("name", ["with space", "Данные", "🦊 fox", "trailing.", "NUL", "é" * 100])
def test_any_path_works(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    path = write(folder / f"{name}.yaml", f"{BASE}coverage: {{path: '{name}/{name}.jsonl'}}\n")
    config = configfile.load(path).config
    assert config.coverage and config.coverage.path == f"{name}/{name}.jsonl"


# What load returns


def test_origins_and_size(file: Path) -> None:
    text = BASE + "size: small\ntrain:\n  epochs: 1.5\n  seed: 3\n"
    loaded = configfile.load(write(file, text))
    assert (loaded.config.train.epochs, loaded.config.train.learning_rate) == (1.5, 2e-4)
    assert loaded.config.pack.seq_len_tokens == 2048
    wanted = {"name": "understudy.yaml:2", "sources.0.path": "understudy.yaml:4", "train.epochs": "understudy.yaml:7"}
    wanted |= {"train.learning_rate": "size: small", "pack.max_truncated": "default", "judge": "default"}
    assert {key: loaded.origins[key] for key in wanted} == wanted
    assert loaded.digest == hashlib.sha256(text.encode()).hexdigest() and loaded.path == file
    assert set(loaded.origins.values()) <= {"default", "size: small"} | {f"understudy.yaml:{i}" for i in range(9)}


def test_starter_loads(file: Path) -> None:
    for name in ("demo", "1e4", "null", "007"):
        loaded = configfile.load(write(file, configfile.starter(name)))
        assert loaded.config.name == name and loaded.config.teacher and loaded.config.coverage
    keys = [line for line in configfile.starter("demo").splitlines() if line.strip()]
    assert all("#" in line for line in keys) and len(keys) < 25
    with pytest.raises(UnderstudyError, match="CFG_RANGE"):
        configfile.starter("Not a Name")


def test_schema_describes_every_key() -> None:
    schema = configfile.schema()
    assert schema["$schema"].endswith("2020-12/schema") and schema["additionalProperties"] is False
    for model in (schema, *schema["$defs"].values()):
        for key, node in model["properties"].items():
            target = schema["$defs"].get(node.get("$ref", "").rsplit("/", 1)[-1], {})
            assert node.get("description") or target.get("description"), f"{model['title']}.{key} has no help"


def test_reference_in_docs_is_fresh() -> None:
    text = DOCS.read_text("utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    fresh = f"{before}{BEGIN}\n{configfile.reference()}\n\n{END}{after}"
    if os.environ.get("UPDATE_DOCS"):
        DOCS.write_text(fresh, "utf-8")
        text = fresh
    assert text == fresh, "stale: UPDATE_DOCS=1 pytest tests/test_configfile.py -k reference"


def test_start_up_needs_no_yaml() -> None:
    code = "import sys, understudy.configfile; sys.exit('ruamel' in sys.modules or 'ruamel.yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Nothing else escapes

_SEED = configfile.starter("demo") + "serve: {host: 'a', port: 0x50}\nanswer: {shots: [1, 2]}\n"
_PIECES = [
    "\t",
    ":",
    "- ",
    "[",
    "{",
    "&a",
    "*a",
    "!x",
    "? ",
    "|\n",
    '"\\x',
    "'",
    "\0",
    "\x85",
    "\u2028",
    "%",
    "\ufeff",
    "#",
    "010",
    "~",
    "\n  ",
]


@settings(max_examples=120, deadline=None, database=None)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)))
def test_any_bytes(data: bytes) -> None:
    _only_ours(data)


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(0, len(_SEED)), st.integers(0, 9), st.sampled_from(_PIECES)), max_size=4))
def test_mutated_yaml(edits: list[tuple[int, int, str]]) -> None:
    text = _SEED
    for at, cut, piece in edits:
        text = text[:at] + piece + text[at + cut :]
    _only_ours(text.encode())


def _only_ours(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "u.yaml", data)
        try:
            configfile.load(path)
        except UnderstudyError as e:
            assert e.exit_code in (2, 6) and e.line().isprintable()

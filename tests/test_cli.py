"""The command line as a user meets it: starts fast, one line per error, the right exit code, -C anywhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from thread import TINY, make_tiny, one_line, understudy

from understudy.config import OWN_FOLDERS
from understudy.core.artifact import Release, Store


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_tiny(tmp_path)


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['understudy', '--help']\nfrom understudy.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'transformers', 'mlflow', 'numpy', 'sqlalchemy', 'openai', 'jinja2', 'ruamel.yaml'}\n"
    code += "print('LOADED', sorted(heavy & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "LOADED []" in result.stdout
    commands = (
        "init",
        "check",
        "schema",
        "plan",
        "run",
        "step",
        "runs",
        "show",
        "explain",
        "gc",
        "simulate",
        "serve",
        "ledger",
        "blame",
        "traffic",
        "harvest",
        "watch",
    )
    for command in commands:
        assert f"\n  {command} " in result.stdout


@pytest.mark.slow
def test_directory_may_stand_before_or_after_the_command(project: Path) -> None:
    before = understudy("-C", str(project), "plan")
    after = understudy("plan", "-C", str(project))
    glued = understudy(f"-C{project}", "plan")
    assert before.returncode == after.returncode == glued.returncode == 0, before.stderr
    assert before.stdout == after.stdout == glued.stdout and "to run" in before.stdout


@pytest.mark.parametrize(
    ("args", "code", "status"),
    [
        (["plan", "-C", "nowhere-at-all"], "DIRECTORY", 2),
        (["plan", "-C"], "USAGE", 2),
        (["plan"], "CFG_NOT_FOUND", 2),
        (["frobnicate"], "USAGE", 2),
        (["run", "--nonsense"], "USAGE", 2),
        (["schema", "nonsense"], "USAGE", 2),
        (["serve", "--port", "99999"], "USAGE", 2),
    ],
)
def test_wrong_calls_get_one_line(tmp_path: Path, args: list[str], code: str, status: int) -> None:
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        one_line(understudy(*args), code, status)
    finally:
        os.chdir(here)


def test_errors_are_json_when_asked(tmp_path: Path) -> None:
    result = understudy("show", "--json", "-C", str(tmp_path))
    error = json.loads(result.stderr)
    assert result.returncode == 2 and error["code"] in ("NO_RUN", "CFG_NOT_FOUND") and error["exit"] == 2


@pytest.mark.slow
def test_init_writes_a_project_that_check_reads(tmp_path: Path) -> None:
    target = tmp_path / "my-task"
    assert understudy("init", str(target)).returncode == 0
    one_line(understudy("init", str(target)), "CFG_EXISTS", 2)
    missing = one_line(understudy("check", "-C", str(target)), "SOURCE_NOT_FOUND", 2)
    assert "data/" in missing


def test_init_with_a_name_that_is_none_makes_no_folder(tmp_path: Path) -> None:
    one_line(understudy("init", str(tmp_path / "Not A Name")), "CFG_RANGE", 2)
    assert list(tmp_path.iterdir()) == []


def test_init_keeps_what_git_ignores_already(tmp_path: Path) -> None:
    target = tmp_path / "my-task"
    target.mkdir()
    (target / ".gitignore").write_text("secret.txt\nruns/\n*.tmp")
    assert understudy("init", str(target)).returncode == 0
    lines = (target / ".gitignore").read_text().splitlines()
    added = {f"{name}/" for name in OWN_FOLDERS} - {"runs/"}
    assert lines[:3] == ["secret.txt", "runs/", "*.tmp"] and set(lines[3:]) == added and len(lines) == 3 + len(added)


def test_without_arguments_the_help_is_shown() -> None:
    result = understudy()
    assert result.returncode == 0 and result.stderr == "" and "Commands:" in result.stdout


@pytest.mark.slow
def test_secrets_are_accepted_only_when_asked_and_never_shown(project: Path) -> None:
    (project / "understudy.yaml").write_text(TINY + "judge: {api_key: hunter2}\n")
    one_line(understudy("plan", "-C", str(project)), "SECRET_IN_CONFIG", 6)
    shown = understudy("plan", "--values", "--allow-secrets", "-C", str(project))
    assert 'judge.api_key = "***"' in shown.stdout and shown.returncode == 0
    assert understudy("plan", "--bind", "--allow-secrets", "-C", str(project)).returncode == 0
    (project / "understudy.yaml").write_text(TINY + "judge: {api_key: hunter3}\n")
    why = understudy("plan", "--why", "--allow-secrets", "-C", str(project)).stdout
    assert "judge.api_key" in why and "hunter" not in why + understudy("explain", "register", "-C", str(project)).stdout


def test_check_names_an_unset_variable_and_never_its_value(project: Path) -> None:
    more = "coverage: {path: data/rows.jsonl, fields: {prompt: q, response: a}}\n"
    (project / "data" / "pairs.jsonl").write_text((project / "data" / "rows.jsonl").read_text())
    more = more.replace("rows.jsonl", "pairs.jsonl")
    more += (
        "teacher: {provider: openai, base_url: 'http://127.0.0.1:9/v1', model: m, api_key: '${env:MY_TEACHER_KEY}'}\n"
    )
    (project / "understudy.yaml").write_text(TINY + more)
    unset = one_line(understudy("check", "-C", str(project)), "ENV_MISSING", 2)
    assert "MY_TEACHER_KEY" in unset
    broken = one_line(understudy("check", "-C", str(project), MY_TEACHER_KEY="sec\nret"), "ENV_MISSING", 2)
    assert "MY_TEACHER_KEY" in broken and "sec" not in broken
    assert understudy("check", "-C", str(project), MY_TEACHER_KEY="fine").returncode == 0


@pytest.mark.slow
def test_unknown_run_and_step_are_named(project: Path) -> None:
    one_line(understudy("show", "-C", str(project)), "NO_RUN", 2)
    assert understudy("plan", "--bind", "-C", str(project)).returncode == 0
    assert "run-0001" in one_line(understudy("show", "run-9999", "-C", str(project)), "NO_RUN", 2)
    one_line(understudy("explain", "nonsense", "-C", str(project)), "STEP_UNKNOWN", 2)
    one_line(understudy("run", "--control", "nonsense", "-C", str(project)), "CONTROL_UNKNOWN", 2)


def test_bad_rows_beyond_the_limit_stop_with_exit_3_and_lose_nothing(project: Path) -> None:
    rows = project / "data" / "rows.jsonl"
    content = rows.read_text() + "{broken\n" * 3
    rows.write_text(content)
    (project / "understudy.yaml").write_text(TINY.replace("fields:", "max_bad_rows: 2, fields:"))
    line = one_line(understudy("run", "--quiet", "-C", str(project)), "BAD_ROWS", 3)
    assert "rows.jsonl" in line and rows.read_text() == content
    (project / "understudy.yaml").write_text(TINY.replace("fields:", "max_bad_rows: 3, fields:"))
    plan = understudy("plan", "--bind", "-C", str(project)).stdout.strip()
    assert understudy("step", "collect", "--plan", plan, "-C", str(project)).stdout.startswith("ran collect")


def test_closed_pipe_is_quiet(project: Path) -> None:
    command = f"{sys.executable} -m understudy schema -C {project} | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in result.stderr and "BrokenPipe" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_simulate_stops_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "understudy", "simulate", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        assert "http://127.0.0.1:" in process.stderr.readline()
        start = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert "Traceback" not in errors and time.monotonic() - start < 15


def test_a_hangup_that_was_ignored_stays_ignored(tmp_path: Path) -> None:
    command = ["nohup", sys.executable, "-m", "understudy", "simulate", "--port", "0"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=tmp_path
    ) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "http://127.0.0.1:" in line)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_step_into_another_store_registers_nothing(project: Path) -> None:
    plan = understudy("plan", "--bind", "-C", str(project)).stdout.strip()
    row = next(s for s in json.loads(Path(plan).read_text())["steps"] if s["name"] == "register")
    store = Store(project / "other")
    staged = store.stage_directory("register", row["fingerprint"])
    (staged / "release.json").write_text("{}")
    passed = Release(staged, facts={"passed": True, "name": "understudy", "control": None})
    header = {"name": "register", "stage": "register", "fingerprint": row["fingerprint"], "inputs": {}}
    store.commit(passed, staged, header)
    result = understudy("step", "register", "--plan", plan, "--store", str(store.root), "-C", str(project))
    assert result.stdout.startswith("cached register"), result.stderr
    assert not (project / "registry").exists()


def test_a_plan_of_another_release_is_not_carried_out(project: Path) -> None:
    plan = Path(understudy("plan", "--bind", "-C", str(project)).stdout.strip())
    plan.write_text(plan.read_text().replace('"min_chars": 1', '"min_chars": 2'))
    assert "plan --bind" in one_line(
        understudy("step", "collect", "--plan", str(plan), "-C", str(project)), "PLAN_STALE", 2
    )


@pytest.mark.slow
def test_locale_and_hash_seed_do_not_change_a_digest(project: Path, tmp_path: Path) -> None:
    plan = understudy("plan", "--bind", "-C", str(project)).stdout.strip()
    printed = set()
    for index, variables in enumerate(
        ({"LC_ALL": "C", "PYTHONHASHSEED": "1"}, {"LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo"})
    ):
        store = tmp_path / f"store-{index}"
        for name in ("collect", "clean", "dedupe", "split"):
            last = understudy("step", name, "--plan", plan, "--store", str(store), "-C", str(project), **variables)
            assert last.returncode == 0, last.stderr
        printed.add(last.stdout)
        shutil.rmtree(store)
    assert len(printed) == 1


def test_the_list_of_commands_fits_80_columns_in_the_order_of_use() -> None:
    from understudy.cli.app import ORDER

    lines = understudy("--help", COLUMNS="80").stdout.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in lines] == list(ORDER)
    assert all(len(line) <= 80 and not line.endswith("...") for line in lines)

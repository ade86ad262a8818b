"""What must hold for the repository as a whole: sizes, imports, pins, the wheel, and what `make setup` does."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from benchmarks import tables
from benchmarks.project import balanced

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "understudy"
MODULES = sorted(PACKAGE.rglob("*.py"))

MODULE_LINES, FUNCTION_LINES, PARAMETERS = 500, 60, 7
LONGER = {("understudy/train/sft.py", "train"): 150, ("understudy/models/tiny/pretrain.py", "train"): 150}
"""Functions that may be longer, with their own limit: the training loops."""

HEAVY = ("alembic", "fastapi", "mlflow", "numpy", "openai", "peft", "sacrebleu", "sqlalchemy", "tokenizers", "torch")
HEAVY += ("transformers", "uvicorn")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def committable() -> list[Path]:
    """Every file that git tracks or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def texts() -> Iterator[tuple[str, str]]:
    """Path and content of every committable text file."""
    for path in committable():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            yield path.relative_to(ROOT).as_posix(), content.decode("utf-8", "replace")


def direct(*groups: str) -> dict[str, Requirement]:
    """Direct dependencies of the core and of the given extras, by canonical name."""
    lines = [*PROJECT["dependencies"], *(line for group in groups for line in EXTRAS[group])]
    found = {canonicalize_name(r.name): r for r in map(Requirement, lines)}
    found.pop("understudy", None)
    return found


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return {canonicalize_name(r.name): r for r in (Requirement(x) for x in lines if x and not x.startswith("#"))}


# Sizes


def test_modules_stay_within_500_lines() -> None:
    lines = {p.relative_to(ROOT).as_posix(): len(p.read_text("utf-8").splitlines()) for p in MODULES}
    assert {p: n for p, n in lines.items() if n > MODULE_LINES} == {}


def test_functions_stay_within_60_lines_and_7_parameters() -> None:
    offences = []
    for path in MODULES:
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([a for a in arguments if a.arg not in ("self", "cls")])
            if length > LONGER.get((name, node.name), FUNCTION_LINES):
                offences.append(f"{name}:{node.lineno} {node.name}: {length} lines")
            if count > PARAMETERS:
                offences.append(f"{name}:{node.lineno} {node.name}: {count} parameters")
    assert offences == []


def test_no_module_is_a_drawer_for_anything() -> None:
    assert [p.name for p in MODULES if p.stem in ("utils", "util", "helpers", "common", "misc")] == []


# What files say


def test_no_file_names_this_machine_or_a_registry() -> None:
    hosts = ("pypi" + r"\.org", "python" + r"hosted\.org", "download" + r"\.pytorch\.org")
    folders = ("/ro" + "ot/", "/op" + "t/", "/ho" + r"me/\w", "/work/ma" + "in", "/work/sha" + "red")
    pattern = re.compile("|".join([*hosts, *(rf"(?<![\w.}}]){f}" for f in folders)]))
    assert [f"{name}: {found[0]}" for name, text in texts() for found in pattern.finditer(text)] == []


def test_nothing_is_left_for_later_in_comments() -> None:
    pattern = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")
    assert [name for name, text in texts() if pattern.search(text)] == []


# Imports and dependencies


def test_planning_modules_import_without_the_heavy_libraries() -> None:
    """The first module that pulls a heavy library in is named; every one would pull in what it imports."""
    paths = [p for p in (*PACKAGE.glob("*.py"), *(PACKAGE / "core").glob("*.py")) if p.stem != "__main__"]
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in sorted(paths)]
    script = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "    if heavy: sys.exit(f'{name} loads {heavy}')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_library_that_the_package_imports_is_a_declared_dependency() -> None:
    imported: dict[str, str] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules = [node.module]
            else:
                continue
            imported |= {m.split(".")[0]: path.relative_to(ROOT).as_posix() for m in modules}
    # `google` is a name that many distributions share; its own is not installed for `make test`.
    owners = {**importlib.metadata.packages_distributions(), "google": ["google-cloud-bigquery"]}
    declared = set(direct(*EXTRAS.keys() - {"dev", "services"}))
    foreign = {n: p for n, p in imported.items() if n not in sys.stdlib_module_names and n != "understudy"}
    undeclared = {n: p for n, p in foreign.items() if not {canonicalize_name(d) for d in owners.get(n, [n])} & declared}
    assert undeclared == {}


def test_constraints_pin_every_direct_dependency_within_its_range() -> None:
    pinned = pins()
    for name, requirement in direct(*EXTRAS).items():
        assert name in pinned, f"{name} has no pin"
        assert requirement.specifier.contains(next(iter(pinned[name].specifier)).version), (
            f"{requirement} excludes its pin"
        )


def test_constraints_say_what_is_installed_here() -> None:
    """Pins are what was tested: an environment that differs is not the one that `make setup` makes."""
    different = {}
    for name, requirement in pins().items():
        assert [s.operator for s in requirement.specifier] == ["=="], f"{requirement} is not exact"
        try:
            installed = Version(importlib.metadata.version(name)).public
        except importlib.metadata.PackageNotFoundError:
            continue
        if not requirement.specifier.contains(installed):
            different[name] = installed
    assert different == {}
    assert "+" not in (ROOT / "constraints.txt").read_text("utf-8").split("torch==")[1].splitlines()[0]


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a clean copy: what git holds, and nothing that lies about."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in committable():
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    expected = {p.relative_to(ROOT).as_posix() for p in committable() if p.is_relative_to(PACKAGE)}
    assert {Path(name).suffix for name in expected} >= {".py", ".txt", ".safetensors", ".jinja"}
    names = zipfile.ZipFile(wheel).namelist()
    assert expected - set(names) == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_wheel_runs_in_a_fresh_environment_with_the_core_only(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "fresh"
    python = home / "bin" / "python"
    uv = shutil.which("uv")
    venv.create(home, with_pip=uv is None)
    installer = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    pinned = ["--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run([*installer, "-q", str(wheel), *pinned], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for arguments in (["--help"], ["schema"]):
        command = [str(home / "bin" / "understudy"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
    heavy = subprocess.run([str(python), "-c", "import torch"], capture_output=True)
    assert heavy.returncode != 0, "the core must not bring torch"


# make


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make setup` reads, beside a `bin` folder that is the whole PATH, so that only stand-ins are found."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for tool in ("touch", "tr", "uname", "env", "mkdir", "ln"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    return tmp_path


def make(checkout: Path, *targets: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [str(shutil.which("make")), "-C", str(checkout), "--no-print-directory", *targets]
    env = {"PATH": str(checkout / "bin"), "HOME": str(checkout), **variables}
    return subprocess.run(command, capture_output=True, text=True, env=env)


def stand_in(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/bash\n{script}\n", "utf-8")
    path.chmod(0o755)


def with_uv(checkout: Path) -> None:
    """A Python 3.11 whose pip is configured by nothing, and a uv that notes its environment instead of installing."""
    stand_in(checkout / "bin" / "python3.11", f'[ "$2" = pip ] && exit 1\nexec {sys.executable} "$@"')
    make_venv = f"mkdir -p .venv/bin; ln -sf {sys.executable} .venv/bin/python"
    note = '{ echo "$@"; env; } >> calls.txt'
    stand_in(checkout / "bin" / "uv", f'case "$1" in venv) {make_venv};; pip) {note};; esac')


def test_make_help_lists_every_target_that_the_readme_may_name() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^ *make ([a-z-]+)", listed, re.MULTILINE))
    assert targets >= {"setup", "demo", "test", "test-fast", "check", "bench", "bench-real", "clean"}


def test_setup_without_a_fitting_python_says_so_in_one_line(checkout: Path) -> None:
    stand_in(checkout / "bin" / "python3", "exit 1")
    done = make(checkout, "setup")
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("error:")] == [
        "error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.11"
    ]
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("given", "expected", "absent"),
    [
        ({"PIP_FIND_LINKS": "/wheels /more"}, {"UV_FIND_LINKS=/wheels,/more"}, "UV_TORCH_BACKEND"),
        ({"PIP_EXTRA_INDEX_URL": "file:///index"}, {"UV_INDEX=file:///index"}, "UV_TORCH_BACKEND"),
        ({}, {"UV_TORCH_BACKEND=cpu"}, "UV_FIND_LINKS"),
    ],
)
def test_setup_hands_pips_sources_of_wheels_to_uv(
    checkout: Path, given: dict[str, str], expected: set[str], absent: str
) -> None:
    with_uv(checkout)
    done = make(checkout, "setup", PYTHONDONTWRITEBYTECODE="1", **given)
    assert done.returncode == 0, done.stderr
    calls = (checkout / "calls.txt").read_text("utf-8").splitlines()
    assert calls[0].endswith("--editable .[local,openvino,dev] --constraint constraints.txt")
    assert {*expected, "UV_COMPILE_BYTECODE=1"} <= set(calls)
    assert not [c for c in calls if c.startswith((absent, "PYTHONDONTWRITEBYTECODE"))]


def test_setup_installs_once_and_again_when_the_pins_change(checkout: Path) -> None:
    with_uv(checkout)
    for _ in range(2):
        assert make(checkout, "setup").returncode == 0
    installs = (checkout / "calls.txt").read_text("utf-8").count("pip install")
    stamp = (checkout / ".venv" / ".installed").stat().st_mtime
    os.utime(checkout / "constraints.txt", (stamp + 5, stamp + 5))
    assert make(checkout, "setup").returncode == 0
    assert (installs, (checkout / "calls.txt").read_text("utf-8").count("pip install")) == (1, 2)


# benchmarks


def test_a_table_replaces_only_what_stands_between_its_own_markers() -> None:
    page = "a\n<!-- table: x -->\nold\n<!-- end table -->\nb\n<!-- table: y -->\nkept\n<!-- end table -->\n"
    assert tables.replace(page, "x", "new") == page.replace("old", "new")


@pytest.mark.parametrize(("rejected", "whole"), [({"blank": 2}, True), ({"blank": 1}, False)])
def test_a_benchmark_notices_a_lost_row(rejected: dict[str, int], whole: bool) -> None:
    stages = [{"rows_in": 10, "rows_out": 8, "rejected": rejected}, {"rows_in": None, "rows_out": None, "rejected": {}}]
    assert balanced({"stages": stages}) is whole

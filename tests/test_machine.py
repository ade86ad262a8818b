"""Machines that do not play along: rows 42 and 108 to 111 of the catalogue of bad inputs, on the command line.

Full disks are small file systems of their own where this user may mount one, else a limit on the size of files; a
file system without locks or fsync is one whose system calls the kernel refuses.
"""

from __future__ import annotations

import ast
import ctypes
import json
import os
import platform
import re
import resource
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_bad_input import given, obey_modes
from thread import ROOT, TINY, make_tiny, one_line, understudy

from understudy.configfile import load
from understudy.core import journal, machine
from understudy.core.artifact import write_synced
from understudy.core.journal import Journal, events
from understudy.errors import RemoteError, ResourceError, boundary
from understudy.forecast.disk import estimate
from understudy.pipelines import Bound, lifecycle
from understudy.project import Project

Limit = Callable[[], None]
DATA = ("collect", "clean", "dedupe", "split")
WORDS = [("Diyarbakır İstanbul", "IĞDIR ığdır"), ("ııı", "İİİ"), ("straße ﬁ", "ΣΑΣ σας"), ("ي ة", "١٢")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = make_tiny(tmp_path / "project")
    rows = [{"q": f"{q} {i}", "a": f"{a} {i * 7919}"} for i in range(10) for q, a in WORDS]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "data" / "ılık курс.jsonl").write_text(text + '{"q": "ещё', "utf-8")
    (folder / "understudy.yaml").write_text(TINY.replace("rows.jsonl", "ılık курс.jsonl"), "utf-8")
    return folder


def bound(folder: Path) -> str:
    result = understudy("plan", "--bind", "-C", str(folder))
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def call(*args: str, limit: Limit | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line under a limit, with an environment of its own. What it prints need not be UTF-8."""
    command = [sys.executable, "-m", "understudy", *args]
    env = {**os.environ, **variables}
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="strict", timeout=120, env=env, preexec_fn=limit
    )


def digests(
    folder: Path, plan: str, store: Path, limit: Limit | None = None, last: str = "clean", **variables: str
) -> list[str]:
    """What the data steps up to `last` print, in a fresh store."""
    printed = []
    for name in DATA[: DATA.index(last) + 1]:
        args = ("step", name, "--plan", plan, "--store", str(store), "-C", str(folder))
        result = call(*args, limit=limit, **variables)
        assert result.returncode == 0, result.stderr
        printed.append(result.stdout)
    return printed


# Row 108: no room


def mounted(size: str, place: Path) -> list[str]:
    """A command's beginning that gives it a small file system at `place`; what lies there at its end is printed."""
    script = f'mount -t tmpfs -o {size} tmpfs "$0" && {{ "$@"; code=$?; find "$0" -type f; exit $code; }}'
    return ["unshare", "-m", *(["-r"] if os.geteuid() else []), "sh", "-c", script, str(place)]


def can_mount(place: Path) -> bool:
    try:
        return subprocess.run([*mounted("size=64k", place), "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 1, 2, 4])
def test_a_disk_that_is_full_at_any_write_keeps_what_is_there_and_leaves_nothing_half(project: Path, room: int) -> None:
    """`room`: pages of 4 KiB that the store may take, or the largest file that it may hold, in half KiB."""
    plan, store, before = bound(project), project / "store", given(project)
    (wanted,) = digests(project, plan, project.parent / "whole", last="collect")
    store.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "understudy", "step", "collect", "--plan", plan, "-C", str(project)]
    small = can_mount(store)
    if small:
        # tmpfs takes a page for every file, so that the inodes are another end of the disk.
        ends = {"size": f"size={4 * (room + 1)}k", "inodes": f"size=1m,nr_inodes={room + 2}"}
        results = [
            subprocess.run([*mounted(o, store), *command], capture_output=True, text=True) for o in ends.values()
        ]
    else:
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (512 * room, 512 * room))  # noqa: E731
        results = [subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)]
    for result in results:
        line = one_line(result, "DISK_FULL" if small else "LIMITS", 5)
        assert "free" in line or "inodes" in line or "grow beyond" in line
        assert [p for p in result.stdout.splitlines() if ".leases" not in p] == []
    assert not list(store.rglob("artifact.json")) and given(project) == before
    assert call("step", "collect", "--plan", plan, "-C", str(project)).stdout == wanted


def test_what_libraries_say_of_a_full_disk_is_understood(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    def said(act: Callable[[], object]) -> ResourceError | None:
        try:
            act()
        except Exception as e:
            return machine.fault(e)
        raise AssertionError("there was room")

    def table() -> None:
        db = sqlite3.connect(tmp_path / "small.db")
        try:
            db.execute("PRAGMA max_page_count = 1")
            db.execute("CREATE TABLE t (x)")
        finally:
            db.close()

    def weights() -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def registry() -> None:
        with boundary(RemoteError, "REGISTRY", "mlflow"):
            table()

    for act in (lambda: Path("/dev/full").write_text("x"), table, weights, registry):
        found = said(act)
        assert found and (found.code, found.exit_code) == ("DISK_FULL", 5) and "MB are free" in found.what
    assert machine.fault(ValueError("no such thing")) is None


def test_a_run_that_does_not_fit_is_refused_before_it_begins(project: Path) -> None:
    """The tiny base needs over 4 MB; the disk has 3. Where none may be mounted, only the refusal itself is tried."""
    place = project.parent / "small"
    place.mkdir()
    if not can_mount(place):
        with pytest.raises(ResourceError, match="DISK_FULL"):
            machine.require_room(project, shutil.disk_usage(project).free + 10**12)
        return
    for command in ("check", "run"):
        script = f'cp -r "{project}/." "{place}" && "{sys.executable}" -m understudy {command} -C "{place}"'
        result = subprocess.run([*mounted("size=3m", place), "sh", "-c", script], capture_output=True, text=True)
        line = one_line(result, "DISK_FULL", 5)
        assert re.search(r"needs about [4-9]\.\d MB, [1-3]\.\d MB are free", line), line
        assert "/store/" not in result.stdout and "understudy.yaml" in result.stdout


def to_write(project: Path) -> int:
    found = Project(project)
    return estimate(found.config, found.root, found.preview(), found.store)


def test_the_estimate_counts_what_is_not_done_yet(project: Path) -> None:
    import understudy.stages  # noqa: F401

    plan = bound(project)
    whole = to_write(project)
    tuned, base = 3_145_000, 1_600_000  # the tiny base: 0.8 M numbers, kept in two bytes and trained in four
    assert tuned + base < whole < 1.5 * (tuned + base)
    assert call("step", "base", "--plan", plan, "-C", str(project)).returncode == 0
    assert 0 < whole - to_write(project) - base < 200_000


def test_a_file_that_is_written_whole_leaves_no_draft_when_there_is_no_room(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="large"):
            write_synced(tmp_path / "plan.json", "n" * 2000)
        record = Journal(tmp_path / "journal", "train")
        record.write("started")
        with pytest.raises(OSError, match="space"):
            record.write("failed", error="e" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    record.write("failed")
    assert (tmp_path / "plan.json").read_text() == "old" and {p.name for p in tmp_path.iterdir()} == {
        "plan.json",
        "journal",
    }
    lines = record.path.read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "failed"], "no half line in between"


# Row 109: file systems that cannot hold a project


@pytest.mark.slow
def test_a_folder_that_may_not_be_written_is_refused_at_the_start(project: Path) -> None:
    plan, before = bound(project), given(project)
    closed = project.parent / "closed"
    closed.mkdir(mode=0o555)
    (project / "runs").chmod(0o555)
    limit = obey_modes if os.geteuid() == 0 else None
    commands = [("run", "--quiet"), ("check",), ("plan", "--bind"), ("gc",)]
    for args in [*commands, ("step", "collect", "--plan", plan, "--store", str(closed))]:
        line = one_line(call(*args, "-C", str(project), limit=limit), "FS_UNSUITABLE", 5)
        assert "write: Permission denied" in line
    assert given(project) == before and not list(closed.iterdir()) and not (project / "store").exists()


SYSCALLS = {"x86_64": {"flock": 73, "fsync": 74, "rename": 82}, "aarch64": {"flock": 32, "fsync": 82, "rename": 38}}


def without(name: str, answer: int) -> Limit:
    """Have the kernel answer a system call of the child with an error: a filter of seccomp, for any user."""
    number = SYSCALLS[platform.machine()][name]
    load, equal, give = 0x20, 0x15, 0x06
    steps = [(load, 0, 0, 0), (equal, 0, 1, number), (give, 0, 0, 0x0005_0000 | answer), (give, 0, 0, 0x7FFF_0000)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    about = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)

    def limit() -> None:
        no_new_privileges, seccomp, by_filter = 38, 22, 2
        libc.prctl(no_new_privileges, 1, 0, 0, 0)
        if libc.prctl(seccomp, by_filter, about, 0, 0, program):
            os._exit(99)

    return limit


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in SYSCALLS or sys.platform != "linux", reason="needs Linux's seccomp")
@pytest.mark.parametrize(
    ("call_name", "answer", "probe"),
    [("flock", 37, "lock a file"), ("flock", 0, "lock a file"), ("fsync", 22, "fsync"), ("rename", 95, "replace")],
)
def test_a_disk_without_locks_fsync_or_renames_is_refused_with_the_probe_that_failed(
    project: Path, call_name: str, answer: int, probe: str
) -> None:
    """An answer of 0 is a lock that everybody gets."""
    before = given(project)
    for args in (("plan", "--bind"), ("check",)):
        line = one_line(call(*args, "-C", str(project), limit=without(call_name, answer)), "FS_UNSUITABLE", 5)
        assert f": {probe}" in line
    assert given(project) == before and not list(project.rglob(".probe-*")) and not list(project.rglob("plan.json"))


def test_names_never_differ_by_case_alone(project: Path) -> None:
    """So that a disk which does not tell case apart serves; two names of one file are one source."""
    import understudy.stages  # noqa: F401

    names = [step.name for step in lifecycle(load(project / "understudy.yaml").config, Bound({}, "0" * 64)).steps]
    assert len({name.casefold() for name in names}) == len(names) > 10
    os.link(project / "data" / "rows.jsonl", project / "data" / "ROWS.jsonl")
    text = TINY.replace("gate:", "  - {path: data/ROWS.jsonl, fields: {prompt: q, response: a}}\ngate:")
    (project / "understudy.yaml").write_text(text)
    assert "ROWS.jsonl" in one_line(
        call("step", "collect", "--plan", bound(project), "-C", str(project)), "PATH_CONFLICT", 2
    )


# Row 110: clocks


def test_events_are_in_order_whatever_the_clock_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(["2037-12-31T23:59:59", "2038-01-19T03:14:08", "2026-10-25T01:30:00", "2016-12-31T23:59:60"])
    monkeypatch.setattr(journal, "now", lambda: next(clock))
    for step in ("split", "collect", "train", "clean"):
        Journal(tmp_path, step).write("started")
    assert [e["step"] for e in events(tmp_path)] == ["split", "collect", "train", "clean"]


def test_what_ran_is_known_after_the_clock_went_back(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import understudy.stages  # noqa: F401

    plan = bound(project)
    run = Project(project).run(None)
    Journal(run.journal, "collect").write("finished")
    run.write("status.json", {"started": "2026-11-21T12:00:00.000+00:00", "attempts": journal.length(run.journal)})
    monkeypatch.setattr(journal, "now", lambda: "2026-11-21T11:00:00.000+00:00")
    Journal(run.journal, "clean").write("finished")
    assert Path(plan).is_file() and run.ran(int(run.read("status.json")["attempts"])) == {"clean"}


def test_durations_are_of_the_clock_that_never_goes_back() -> None:
    """The wall clock is read for stamps, and to distrust it; a new use must say why here."""
    stamps = {"traffic.py", "serve/api.py", "serve/completion.py", "models/reply.py"}
    package = ROOT / "understudy"
    readers = {
        p.relative_to(package).as_posix() for p in package.rglob("*.py") if "time.time()" in p.read_text("utf-8")
    }
    assert readers <= stamps


# Rows 42 and 111: locales, consoles, masks, limits, forks


def made_locales(folder: Path) -> dict[str, str]:
    """Turkish and Arabic, made by localedef where the system can; Turkish also in its old 8-bit encoding."""
    wanted = {
        "tr_TR.UTF-8": ("tr_TR", "UTF-8"),
        "tr_TR.ISO-8859-9": ("tr_TR", "ISO-8859-9"),
        "ar_EG.UTF-8": ("ar_EG", "UTF-8"),
    }
    for name, (source, charset) in wanted.items():
        if shutil.which("localedef"):
            subprocess.run(["localedef", "-i", source, "-f", charset, str(folder / name)], capture_output=True)
    return {"LOCPATH": str(folder)}


LOCALES: dict[str, dict[str, str]] = {
    "Turkish": {"LC_ALL": "tr_TR.UTF-8"},
    "Turkish in 8 bits": {"LC_ALL": "tr_TR.ISO-8859-9", "PYTHONUTF8": "0"},
    "Arabic": {"LC_ALL": "ar_EG.UTF-8", "TZ": "America/New_York"},
    "POSIX": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "Latin console": {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"},
}


@pytest.mark.slow
def test_every_locale_gives_the_same_bytes_and_a_console_that_lacks_letters_gets_escapes(project: Path) -> None:
    plan = bound(project)
    wanted = digests(project, plan, project.parent / "plain", last="split")
    places = made_locales(project.parent)
    for name, variables in LOCALES.items():
        store = project.parent / name
        assert digests(project, plan, store, last="split", **places, **variables) == wanted, name
    assert call("step", "collect", "--plan", plan, "-C", str(project)).returncode == 0
    shown = call("ledger", "collect", "-C", str(project), **LOCALES["Latin console"])
    assert r"\u043a\u0443\u0440\u0441.jsonl:41" in shown.stdout and shown.stdout.isascii(), shown
    for name in ("POSIX", "Latin console"):
        assert call("ledger", "collect", "-C", str(project), **LOCALES[name]).returncode == 0
        line = one_line(call("explain", "курс", "-C", str(project), **LOCALES[name]), "STEP_UNKNOWN", 2)
        assert line.isascii() and r"\u043a" in line


@pytest.mark.slow
def test_the_dotless_i_is_one_letter_in_every_locale(project: Path) -> None:
    """Case is folded as Unicode does by default, so that a dot more or less is another text, as it was given."""
    rows = [{"q": f"{word} {i}", "a": f"{word}{i}"} for i in range(10) for word in ("kış", "kiş", "KIŞ", "KİŞ")]
    (project / "data" / "ılık курс.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8"
    )
    plan, places = bound(project), made_locales(project.parent)
    stores = [project.parent / name for name in ("one", "two")]
    one = digests(project, plan, stores[0], last="dedupe", LC_ALL="C.UTF-8")
    assert digests(project, plan, stores[1], last="dedupe", LC_ALL="tr_TR.UTF-8", **places) == one
    (kept,) = stores[1].glob("dedupe/*/rows.jsonl")
    answers = [json.loads(line)["messages"][-1]["content"] for line in kept.read_text("utf-8").splitlines()]
    assert [a for a in answers if a.endswith("3")] == ["kış3", "kiş3", "KİŞ3"], (
        "I folds to i, as Unicode says, and not to ı"
    )


@pytest.mark.slow
@pytest.mark.parametrize("mask", [0o000, 0o777])
def test_a_hostile_mask_opens_nothing_to_others_and_locks_nobody_out(project: Path, mask: int) -> None:
    def limit() -> None:
        os.umask(mask)
        if os.geteuid() == 0:
            obey_modes()

    made = call("plan", "--bind", "-C", str(project), limit=limit)
    assert made.returncode == 0, made.stderr
    got = digests(project, made.stdout.strip(), project / "store", limit=limit)
    for path in [p for name in ("runs", "store") for p in (project / name).rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0 and mode & 0o600 == 0o600, (path, oct(mode))
    assert digests(project, made.stdout.strip(), project.parent / "plain") == got


def files(soft: int, hard: int) -> Limit:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_few_open_files_are_enough_or_are_refused_early(project: Path) -> None:
    plan = bound(project)
    wanted = digests(project, plan, project.parent / "plain")
    assert digests(project, plan, project.parent / "few", limit=files(64, 64)) == wanted
    assert call("check", "-C", str(project), limit=files(16, 64)).returncode == 0, "raised by itself"
    line = one_line(call("run", "-C", str(project), limit=files(24, 24)), "LIMITS", 5)
    assert "24 files" in line and "needs 32" in line and "ulimit -n 32" in line
    with open(project / "understudy.yaml", "a") as f:
        f.write("judge: {provider: simulated, concurrency: 40}\n")
    assert "needs 112" in one_line(call("check", "-C", str(project), limit=files(64, 64)), "LIMITS", 5)


def test_nothing_of_ours_forks() -> None:
    """A fork of a process with threads copies locks that nobody will release: workers are new interpreters."""
    for path in (ROOT / "understudy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute | ast.keyword):
                name = node.attr if isinstance(node, ast.Attribute) else node.arg
                assert name not in ("fork", "forkpty", "preexec_fn", "ProcessPoolExecutor"), path
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "get_context":
                assert [ast.literal_eval(a) for a in node.args] == ["spawn"], path

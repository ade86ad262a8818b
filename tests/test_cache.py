"""The cache of replies: lines that kills, power cuts, other processes and people may leave in any state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from understudy.core.records import digest
from understudy.models.base import Answer
from understudy.models.cache import FILE, ReplyCache, kept
from understudy.models.reply import Reply

GOOD = Reply(Answer("fine \u2028 \ud800", "stop", 3, 2), "served-1")
OTHER = b'{"key":"%s","reply":{"answer":{"text":"?","finish_reason":"stop"},"version":""},"request":{"messages":0}}\n'


def key_of(i: int) -> str:
    return digest({"messages": i})


def put(folder: Path, i: int, reply: Reply = GOOD) -> None:
    with closing(ReplyCache(folder)) as cache:
        cache.store(key_of(i), {"messages": i}, reply)


def got(folder: Path, i: int) -> Reply | None:
    with closing(ReplyCache(folder)) as cache:
        return cache.load(key_of(i))


@pytest.mark.parametrize("left", [b"", b'{"key":"', b"{}\n", b"[]\n", b"null\n", b"\xff\xfe\n", "most", "other"])
def test_a_damaged_line_is_no_reply_and_harms_no_other(tmp_path: Path, left: bytes | str) -> None:
    put(tmp_path, 1)
    file = tmp_path / FILE
    whole = file.read_bytes()
    damage = {"most": whole[:-9], "other": OTHER % key_of(1).encode()}[left] if isinstance(left, str) else left
    file.write_bytes(damage)
    assert got(tmp_path, 1) is None
    put(tmp_path, 2)
    assert got(tmp_path, 1) is None and got(tmp_path, 2) == GOOD
    put(tmp_path, 1)
    assert got(tmp_path, 1) == GOOD and got(tmp_path, 2) == GOOD


def test_what_another_process_keeps_is_known_at_once(tmp_path: Path) -> None:
    with closing(ReplyCache(tmp_path / "made")) as mine, closing(ReplyCache(tmp_path / "made")) as theirs:
        assert mine.load(key_of(1)) is None
        theirs.store(key_of(1), {"messages": 1}, GOOD)
        assert mine.load(key_of(1)) == GOOD
        mine.forget(key_of(1))
        assert theirs.load(key_of(1)) is None and not list(kept(tmp_path))
        theirs.store(key_of(1), {"messages": 1}, GOOD)
        assert mine.load(key_of(1)) == GOOD


def test_a_cache_that_is_removed_under_a_running_process_begins_anew(tmp_path: Path) -> None:
    with closing(ReplyCache(tmp_path)) as cache:
        cache.store(key_of(1), {"messages": 1}, GOOD)
        (tmp_path / FILE).unlink()
        assert cache.load(key_of(1)) is None
        cache.store(key_of(2), {"messages": 2}, GOOD)
    assert got(tmp_path, 1) is None and got(tmp_path, 2) == GOOD


def test_a_torn_second_line_hides_no_whole_first_one(tmp_path: Path) -> None:
    put(tmp_path, 1)
    file = tmp_path / FILE
    file.write_bytes(file.read_bytes() + file.read_bytes()[:-12])
    put(tmp_path, 2)
    assert got(tmp_path, 1) == GOOD and got(tmp_path, 2) == GOOD


def test_a_file_that_was_cut_under_a_running_process_is_read_anew(tmp_path: Path) -> None:
    with closing(ReplyCache(tmp_path)) as cache:
        for i in range(3):
            cache.store(key_of(i), {"messages": i}, GOOD)
        assert cache.load(key_of(2)) == GOOD
        os.truncate(tmp_path / FILE, 0)
        cache.store(key_of(4), {"messages": 4}, GOOD)
        assert cache.load(key_of(4)) == GOOD and cache.load(key_of(2)) is None


ADOPTER = """
import sys
from contextlib import closing
from pathlib import Path
from test_cache import GOOD, key_of
from understudy.models.cache import ReplyCache, adopt
adopt(Path(sys.argv[1]))
with closing(ReplyCache(Path(sys.argv[1]))) as cache:
    sys.exit(sum(cache.load(key_of(i)) != GOOD for i in range(500)))
"""


def test_what_earlier_releases_kept_is_taken_over_by_two_processes_at_once(tmp_path: Path) -> None:
    for i in range(500):
        (tmp_path / key_of(i)[:2]).mkdir(exist_ok=True)
        row = {"request": {"messages": i}, "reply": {"answer": asdict(GOOD.answer), "version": GOOD.version}}
        (tmp_path / key_of(i)[:2] / f"{key_of(i)}.json").write_text(json.dumps(row))
    torn = tmp_path / key_of(0)[:2] / f"{'0' * 64}.json"
    torn.write_text('{"request": {')
    args, here = [sys.executable, "-c", ADOPTER, str(tmp_path)], {"PYTHONPATH": str(Path(__file__).parent)}
    assert [p.wait(60) for p in [subprocess.Popen(args, env=here) for _ in range(3)]] == [0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_a_cache_that_may_only_be_read_is_read() -> None:
    reader = "from test_cache import *; os.getuid() or os.setuid(65534); print(got(Path(sys.argv[1]), 1) == GOOD)"
    here = {"PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    # A folder of its own: pytest's are closed to others, and theirs must stay so.
    with TemporaryDirectory() as held:
        folder = Path(held)
        put(folder, 1)
        (folder / FILE).chmod(0o444)
        folder.chmod(0o555)
        told = subprocess.run([sys.executable, "-c", reader, held], env=here, capture_output=True, text=True)
        folder.chmod(0o755)
    assert told.stdout == "True\n", told.stderr


WRITER = """
import sys
from pathlib import Path
from test_cache import GOOD, key_of
from understudy.models.cache import ReplyCache
cache = ReplyCache(Path(sys.argv[1]))
for i in range(int(sys.argv[2]), 2000, 4):
    cache.store(key_of(i), {"messages": i}, GOOD)
"""


def test_processes_that_write_at_once_lose_no_line(tmp_path: Path) -> None:
    args = [sys.executable, "-c", WRITER, str(tmp_path)]
    here = {"PYTHONPATH": str(Path(__file__).parent)}
    writers = [subprocess.Popen([*args, str(k)], env=here) for k in range(4)]
    assert [w.wait(60) for w in writers] == [0] * 4
    assert sorted(held["request"]["messages"] for held in kept(tmp_path)) == list(range(2000))


def test_lines_longer_than_what_is_read_at_once_are_whole(tmp_path: Path) -> None:
    long = Reply(Answer("x" * 9_000_000, "stop"), "served-1")
    put(tmp_path, 1, long)
    put(tmp_path, 2)
    assert got(tmp_path, 1) == long and got(tmp_path, 2) == GOOD


def test_without_a_folder_nothing_is_kept() -> None:
    cache = ReplyCache(None)
    cache.store(key_of(1), {"messages": 1}, GOOD)
    cache.forget(key_of(1))
    assert cache.load(key_of(1)) is None

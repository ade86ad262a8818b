"""Every full request that was answered, with its reply: one line of one file that only grows, so a rerun costs no call.

A line is written by one call, and one that is not whole is no reply: what a killed process leaves is
there or counts as never written. A file for each reply took 0.3 to 0.7 ms to make; a line takes 10 us.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from understudy.core.records import canonical, digest, sync_path
from understudy.models.base import Answer
from understudy.models.reply import Reply

FILE = "replies.jsonl"
PIECE = 1 << 22
"""Bytes that are read at once; a longer line is read whole."""
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
_HEAD = b'{"key":"'
_KEY = slice(len(_HEAD), len(_HEAD) + 64)
_FORGOTTEN = b'"forget":true}'


class ReplyCache:
    """Safe for any number of threads, and of processes that share the folder. Without a folder it keeps nothing.

    A key is the digest of a request. Of a key's lines the last one counts; one may say that its reply is forgotten.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / FILE if folder else None
        self._lock = threading.Lock()
        self._fd = self._out = -1
        self._read = 0
        self._lines: dict[bytes, tuple[int, int]] = {}  # key -> where its line begins, and its length in bytes

    def load(self, key: str) -> Reply | None:
        """The reply; a line that a power cut left torn is none."""
        held = self._held(key.encode())
        try:
            reply = Reply(Answer(**held["reply"]["answer"]), held["reply"]["version"])
            return reply if digest(held["request"]) == key else None
        except (KeyError, TypeError, ValueError):
            return None

    def store(self, key: str, request: dict[str, Any], reply: Reply) -> None:
        rest = canonical({"reply": asdict(reply), "request": request}).encode("utf-8", "surrogatepass")
        self._append(_HEAD + key.encode() + b'",' + rest[1:])

    def forget(self, key: str) -> None:
        if self.load(key):
            self._append(_HEAD + key.encode() + b'",' + _FORGOTTEN)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """What is kept: `request` and `reply` of each, in the order of the replies."""
        with self._lock:
            keys = list(self._lines) if self._refreshed() else []
        yield from (held for key in keys if (held := self._held(key)))

    def close(self) -> None:
        with self._lock:
            self._begin_anew()

    def _begin_anew(self) -> None:
        for fd in (self._fd, self._out):
            if fd >= 0:
                os.close(fd)
        self._fd = self._out = -1
        self._read, self._lines = 0, {}

    def _held(self, key: bytes) -> dict[str, Any]:
        with self._lock:
            if not self._refreshed() or (place := self._lines.get(key)) is None:
                return {}
            line = os.pread(self._fd, place[1], place[0])
        try:
            held = json.loads(line)
        except ValueError:
            return {}
        return held if isinstance(held, dict) else {}

    def _append(self, line: bytes) -> None:
        if self._file is None:
            return
        with self._lock:
            self._size()
            if self._out < 0:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._out = os.open(self._file, _APPEND, 0o644)
            with _alone(self._out):
                _write(self._out, line, self._file)

    def _size(self) -> int:
        """Bytes of the file as it is now; -1 where there is none."""
        if self._file is None:
            return -1
        try:
            if self._fd < 0:
                self._fd = os.open(self._file, os.O_RDONLY)
            state = os.fstat(self._fd)
            if not state.st_nlink or state.st_size < self._read:  # somebody has emptied it under a running process
                self._begin_anew()
                self._fd = os.open(self._file, os.O_RDONLY)
                state = os.fstat(self._fd)
        except FileNotFoundError:
            self._begin_anew()
            return -1
        return state.st_size

    def _refreshed(self) -> bool:
        """Whether there is a file; where its whole lines are is known then, also of what others have written."""
        size = self._size()
        for start, line in _lines(self._fd, self._read, size):
            if line.startswith(_HEAD) and line.endswith(b"}"):
                if line.endswith(_FORGOTTEN):
                    self._lines.pop(line[_KEY], None)
                else:
                    self._lines[line[_KEY]] = (start, len(line))
            self._read = start + len(line) + 1
        return size >= 0


def adopt(folder: Path) -> None:
    """Take over what earlier releases kept in a folder, a file for each reply; those files go."""
    old = sorted(folder.glob("[0-9a-f][0-9a-f]/*.json"))
    if not old:
        return
    file = folder / FILE
    fd = os.open(file, _APPEND, 0o644)
    try:
        with _alone(fd):
            for reply in old:
                with suppress(OSError, ValueError, KeyError, TypeError):  # gone to another process, or torn
                    held = json.loads(reply.read_bytes())
                    row = canonical({"key": reply.stem, "reply": held["reply"], "request": held["request"]})
                    _write(fd, row.encode("utf-8", "surrogatepass"), file)
            os.fsync(fd)
            sync_path(folder)
            for reply in old:
                reply.unlink(missing_ok=True)
            for parent in {reply.parent for reply in old}:
                with suppress(OSError):
                    parent.rmdir()
    finally:
        os.close(fd)


def kept(folder: Path) -> Iterator[dict[str, Any]]:
    """`request` and `reply` of every answered request in the caches under `folder`, to be read by people and tests."""
    for file in sorted(folder.rglob(FILE)):
        with closing(ReplyCache(file.parent)) as cache:
            yield from cache


def _lines(fd: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of every line in [start, end) that ends there."""
    held = b""
    while start + len(held) < end and (piece := os.pread(fd, PIECE, start + len(held))):
        *whole, held = (held + piece).split(b"\n")
        for line in whole:
            yield start, line
            start += len(line) + 1


def _write(fd: int, line: bytes, file: Path) -> None:
    """The line before may be one that a killed process left unfinished, so this one has a start of its own."""
    data = b"\n" + line + b"\n"
    try:
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(file)) from None


@contextmanager
def _alone(fd: int) -> Iterator[None]:
    """Shared drives do not append whole lines by themselves."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)

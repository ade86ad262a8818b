"""Exclusive holds on a project or on one step's output.

A hold is a file locked with flock: the kernel releases it when its owner dies, so a dead owner's hold is free at
once. The file's text (pid, host, since) is for people and for the message that a second process gets.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from understudy.errors import BusyError


@contextmanager
def hold(path: Path, *, what: str) -> Iterator[None]:
    """Hold `path` exclusively; raises BusyError naming the owner when another process does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _locked(fd):
            raise BusyError("BUSY", what, f"held by {_owner(path)}", "wait for it or stop that process")
        os.ftruncate(fd, 0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        os.pwrite(fd, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode(), 0)
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text("utf-8"))
        return f"pid {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"

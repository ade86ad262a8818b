"""One file for every full request that was answered, named by the request's digest: a rerun costs no call.

A file is written at once, and one that is not whole is no reply: what a killed process leaves is whole or counts as
never written.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from understudy.core.records import canonical, digest
from understudy.models.base import Answer
from understudy.models.reply import Reply

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


class ReplyCache:
    """Safe for any number of threads and processes. Without a folder it keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = str(folder) if folder else ""

    def load(self, key: str) -> Reply | None:
        """The reply; a file that a power cut left empty or torn is none."""
        if not self._folder:
            return None
        try:
            with open(self._file(key), "rb") as f:
                held = json.loads(f.read())
            reply = Reply(Answer(**held["reply"]["answer"]), held["reply"]["version"])
            return reply if digest(held["request"]) == key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def store(self, key: str, request: dict[str, Any], reply: Reply) -> None:
        """Three system calls: each of them lets another thread in, which costs more than the call itself."""
        if not self._folder:
            return
        data = canonical({"request": request, "reply": asdict(reply)}).encode("utf-8", "surrogatepass")
        file = self._file(key)
        try:
            fd = os.open(file, _CREATE, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(file), exist_ok=True)
            fd = os.open(file, _CREATE, 0o644)
        try:
            if os.write(fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file)
        finally:
            os.close(fd)

    def forget(self, key: str) -> None:
        if self._folder:
            Path(self._file(key)).unlink(missing_ok=True)

    def _file(self, key: str) -> str:
        return f"{self._folder}/{key[:2]}/{key}.json"

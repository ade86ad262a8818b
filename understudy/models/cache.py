"""One file for every full request that was answered, named by the request's digest: a rerun costs no call.

A file is written beside its place and renamed, so that a killed process leaves whole replies and nothing else.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from understudy.core.records import canonical, digest
from understudy.models.base import Answer
from understudy.models.reply import Reply


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
        """Plain system calls: through pathlib the same takes 0.75 ms instead of 0.16, half of a request's own cost."""
        if not self._folder:
            return
        data = canonical({"request": request, "reply": asdict(reply)}).encode("utf-8", "surrogatepass")
        file = self._file(key)
        draft = f"{os.path.dirname(file)}/.{key}.{os.getpid()}.{threading.get_ident()}"
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(file), exist_ok=True)
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        with open(fd, "wb") as f:
            f.write(data)
        os.replace(draft, file)

    def forget(self, key: str) -> None:
        if self._folder:
            Path(self._file(key)).unlink(missing_ok=True)

    def _file(self, key: str) -> str:
        return f"{self._folder}/{key[:2]}/{key}.json"

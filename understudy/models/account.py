"""What a run spends on rented models: one append-only file for all roles and processes, and a limit that holds.

Before a request goes out, the most it can cost is reserved; its real price replaces that when the reply tells the
tokens. What a killed process had reserved counts in full, since nobody knows what the provider did with it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from understudy.config.models import Price
from understudy.errors import ResourceError

PER = 1_000_000
"""Prices are per so many tokens."""
SLACK = 1e-9
"""Money; sums of floating-point prices are no more exact."""


def cost(price: Price | None, prompt_tokens: float, completion_tokens: float) -> float:
    """Money for so many tokens; a service without a price counts as free."""
    return (price.prompt * prompt_tokens + price.completion * completion_tokens) / PER if price else 0.0


class Account:
    """Thread-safe, and safe between processes that share `file`. Without a limit it only writes down what was spent."""

    def __init__(self, file: Path, limit: float | None = None) -> None:
        self.file, self.limit = file, limit
        self._name = secrets.token_hex(4)
        self._reserved: dict[str, float] = {}
        self._spent = 0.0
        self._read = 0
        self._count = 0
        self._cut = True
        self._fd: int | None = None
        self._changed = threading.Condition()
        self._mine: set[str] = set()

    @property
    def spent(self) -> float:
        """Money that replies have cost, and what is reserved for requests without one."""
        with self._changed, self._locked():
            return self._taken()

    def _taken(self) -> float:
        return self._spent + sum(self._reserved.values())

    def reserve(self, role: str, most: float) -> str:
        """A ticket for a request that costs at most `most`. Waits while other threads' requests may free money.

        Raises ResourceError BUDGET_SPENT when the request could exceed the limit whatever its neighbours cost.
        """
        with self._changed:
            while True:
                with self._locked():
                    taken = self._taken()
                    if self.limit is None or taken + most <= self.limit + SLACK:
                        self._count += 1
                        ticket = f"{self._name}-{self._count}"
                        self._mine.add(ticket)
                        if self.limit is not None:
                            self._write({"ticket": ticket, "role": role, "reserved": round(most, 9)})
                        return ticket
                if not self._mine:
                    raise self._refusal(role, most, taken)
                self._changed.wait(1.0)

    def settle(self, ticket: str, role: str, cost: float, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """Replace a reservation by what the request has cost; 0 where the provider said that it did nothing."""
        with self._changed:
            self._mine.discard(ticket)
            if cost or prompt_tokens or completion_tokens or self.limit is not None:
                tokens = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
                with self._locked():
                    self._write({"ticket": ticket, "role": role, "cost": round(cost, 9), **tokens})
            self._changed.notify_all()

    def _refusal(self, role: str, most: float, taken: float) -> ResourceError:
        what = (
            f"{taken:.4f} of the budget of {self.limit:g} is spent, and the next request may cost {most:.4f}; "
            "stopped before it was sent"
        )
        return ResourceError(
            "BUDGET_SPENT", role, what, "raise loop.budget and run again: answered requests are cached"
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the file, and up to date with what others have written to it."""
        fd = self._open()
        if self.limit is None:
            yield  # one write in append mode is whole by itself
            return
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            size = os.fstat(fd).st_size
            if size > self._read:
                self._take(os.pread(fd, size - self._read, self._read))
            self._cut = size > self._read
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)

    def _open(self) -> int:
        if self._fd is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        return self._fd

    def close(self) -> None:
        with self._changed:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _take(self, data: bytes) -> None:
        whole = data.rfind(b"\n") + 1  # a process may have been killed within its line
        for line in data[:whole].splitlines():
            self._enter(_row(line))
        self._read += whole

    def _enter(self, row: dict[str, Any]) -> None:
        if "reserved" in row:
            self._reserved[row["ticket"]] = row["reserved"]
        elif "cost" in row:
            self._reserved.pop(row["ticket"], None)
            self._spent += row["cost"]

    def _write(self, row: dict[str, Any]) -> None:
        line = json.dumps(row).encode() + b"\n"
        if self._cut:  # a killed process may have left half a line; ours starts a new one
            line = b"\n" + line
        if os.write(self._open(), line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file))
        if self.limit is None:
            self._cut = False
        elif not self._cut:  # what is our own need not be read again
            self._read += len(line)
            self._enter(row)


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def spending(file: Path) -> dict[str, dict[str, float]]:
    """Role -> {requests, prompt_tokens, completion_tokens, cost, unsettled} of an account's file."""
    found: dict[str, dict[str, float]] = {}
    reserved: dict[str, tuple[str, float]] = {}
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        row = _row(line)
        if "role" not in row:
            continue
        of = found.setdefault(
            row["role"], dict.fromkeys(("requests", "prompt_tokens", "completion_tokens", "cost", "unsettled"), 0)
        )
        if "reserved" in row:
            reserved[row["ticket"]] = row["role"], row["reserved"]
        elif "cost" in row:
            reserved.pop(row["ticket"], None)
            of["requests"] += bool(row["completion_tokens"] or row["cost"])
            for key in ("prompt_tokens", "completion_tokens", "cost"):
                of[key] += row[key]
    for role, most in reserved.values():
        found[role]["unsettled"] += most
    return found

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
import time
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
AT_ONCE = 8
"""Requests that money is reserved for, and written down for, at once: what a killed process may leave unaccounted."""
FLUSH_S = 1.0
"""What was spent is written down after so long at the latest."""
PARTS = 8
"""No more than this part of what is left of a budget is reserved at once."""
COUNTS = ("requests", "prompt_tokens", "completion_tokens", "cost")


def cost(price: Price | None, prompt_tokens: float, completion_tokens: float) -> float:
    """Money for so many tokens; a service without a price counts as free."""
    return (price.prompt * prompt_tokens + price.completion * completion_tokens) / PER if price else 0.0


class Account:
    """Thread-safe, and safe between processes that share `file`. Without a limit it only writes down what was spent.

    Money is reserved for some requests at once, and what they cost is written for some at once: a system call lets
    another thread in, and eight of them for each request took a seventh of a client's speed.
    """

    def __init__(self, file: Path, limit: float | None = None) -> None:
        self.file, self.limit = file, limit
        self._name = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._read = 0
        self._cut = True
        self._spent = 0.0
        self._reserved: dict[str, float] = {}
        # This account's own: money that is reserved and free, requests in flight, and what is not written yet.
        self._purse = 0.0
        self._flying: dict[str, float] = {}
        self._count = 0
        self._settled: dict[str, dict[str, float]] = {}
        self._written = time.monotonic()

    @property
    def spent(self) -> float:
        """Money that replies have cost, and what is reserved for requests without one."""
        with self._lock:
            self._flush()
            with self._locked():
                return self._taken()

    def _taken(self) -> float:
        return self._spent + sum(self._reserved.values())

    def reserve(self, role: str, most: float) -> str | None:
        """A ticket for a request that costs at most `most`; None while requests in flight may yet leave enough for it.

        Raises ResourceError BUDGET_SPENT when the request could exceed the limit whatever its neighbours cost.
        """
        with self._lock:
            if self.limit is not None and self._purse < most - SLACK and not self._draw(most):
                if self._flying:
                    return None
                self._purse = 0.0
                self._flush()  # another process may have a use for the rest
                raise self._refusal(role, most)
            self._count += 1
            ticket = f"{self._name}-{self._count}"
            self._flying[ticket] = most
            self._purse = max(0.0, self._purse - most)
            return ticket

    def _draw(self, most: float) -> bool:
        """Reserve enough for `most`, and for more requests like it while that is a small part of what is left."""
        assert self.limit is not None
        self._write_settled()
        with self._locked():
            free = self.limit - self._taken()
            short = most - max(0.0, self._purse)
            if free + SLACK < short:
                return False
            more = most * (min(AT_ONCE, int(free / PARTS / most)) - 1) if most > 0 else 0.0
            self._purse += short + max(0.0, more)
            self._write({"ticket": self._name, "reserved": round(self._held(), 9)})
            return True

    def _held(self) -> float:
        """What is reserved for this account: free, in flight, or spent and not written yet."""
        return max(0.0, self._purse) + sum(self._flying.values())

    def settle(self, ticket: str, role: str, cost: float, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """Replace a reservation by what the request has cost; 0 where the provider said that it did nothing."""
        with self._lock:
            # A reply may cost more than was thought; what is free never falls below nothing.
            self._purse = max(0.0, self._purse + self._flying.pop(ticket) - cost)
            of = self._settled.setdefault(role, dict.fromkeys(COUNTS, 0))
            of["requests"] += bool(cost or completion_tokens)
            of["cost"] += cost
            of["prompt_tokens"] += prompt_tokens
            of["completion_tokens"] += completion_tokens
            of["settled"] = of.get("settled", 0) + 1
            late = time.monotonic() - self._written > FLUSH_S
            if late or sum(o["settled"] for o in self._settled.values()) >= AT_ONCE:
                self._flush()
                self._written = time.monotonic()

    def _flush(self) -> None:
        if self._settled or self.limit is not None:
            self._write_settled()
        if self.limit is not None:
            with self._locked():
                if self._reserved.get(self._name, 0.0) != round(self._held(), 9):
                    self._write({"ticket": self._name, "reserved": round(self._held(), 9)})

    def _write_settled(self) -> None:
        if not self._settled:
            return
        with self._locked():
            for role, of in self._settled.items():
                row = {key: round(of[key], 9) for key in COUNTS}
                held = {"reserved": round(self._held(), 9)} if self.limit is not None else {}
                self._write({"ticket": self._name, "role": role, **row, **held})
            self._settled = {}

    def _refusal(self, role: str, most: float) -> ResourceError:
        with self._locked():
            taken = self._taken()
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
        """Write what is left to write; money that was reserved and not needed is free again."""
        with self._lock:
            self._purse = 0.0
            self._flush()
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _take(self, data: bytes) -> None:
        whole = data.rfind(b"\n") + 1  # a process may have been killed within its line
        for line in data[:whole].splitlines():
            self._enter(_row(line))
        self._read += whole

    def _enter(self, row: dict[str, Any]) -> None:
        self._spent += row.get("cost", 0.0)
        if "reserved" in row:
            self._reserved[row["ticket"]] = row["reserved"]

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
    """Role -> {requests, prompt_tokens, completion_tokens, cost} of an account's file; `unsettled` has cost only.

    `unsettled`: what is reserved by requests in flight, or was by processes that were killed.
    """
    found: dict[str, dict[str, float]] = {}
    reserved: dict[str, float] = {}
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        row = _row(line)
        if "reserved" in row:
            reserved[row["ticket"]] = row["reserved"]
        if "role" in row:
            of = found.setdefault(row["role"], dict.fromkeys(COUNTS, 0))
            for key in COUNTS:
                of[key] += row[key]
    if left := sum(reserved.values()):
        found["unsettled"] = {**dict.fromkeys(COUNTS, 0), "cost": left}
    return found

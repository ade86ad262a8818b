"""A JSON Lines file in pieces, and functions over the pieces in several processes: results come in order.

Workers are new interpreters that read tasks as JSON from a pipe, so nothing is forked and a caller's main module is not
run again. What a piece yields goes to files; a small file is worked on here, in this process.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from understudy import errors

SHARD_BYTES = 4 << 20
"""About 5,000 documents: a tenth of a second's work, and some tens of MB in memory."""
ALONE_BYTES = 4 * SHARD_BYTES
"""Smaller files are not worth the 0.3 s in which a worker starts."""

IDLE_S = 5.0

Task = dict[str, Any]
_KEEP = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": "268435456", "MALLOC_TOP_PAD_": "67108864"}
"""With the GNU C library a worker keeps freed memory for its next array; asking anew took a tenth of the time."""
_PROGRAM = "from understudy.data.shards import serve; serve()"


class Shard(NamedTuple):
    """Bytes `start` to `end` of a file: whole lines."""

    start: int
    end: int

    def lines(self, path: Path) -> list[bytes]:
        """The lines with their line ends."""
        with open(path, "rb") as f:
            f.seek(self.start)
            return f.read(self.end - self.start).splitlines(keepends=True)


def cut(path: Path) -> list[Shard]:
    """The file as shards of about SHARD_BYTES; where it is cut depends on its content alone."""
    size = SHARD_BYTES
    shards, start, total = list[Shard](), 0, path.stat().st_size
    with open(path, "rb") as f:
        while start < total:
            f.seek(min(start + size, total) - 1)
            f.readline()
            shards.append(Shard(start, f.tell()))
            start = f.tell()
    return shards


def processes(path: Path, asked: int) -> int:
    """How many processes to use for a file: `asked`, or with 0 one for each core that this process may use."""
    if path.stat().st_size < ALONE_BYTES:
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    return asked or (len(affinity(0)) if affinity else os.cpu_count() or 1)


class Workers:
    """`count` processes for as long as the block lasts; 1 works in this process. They start with the first task.

    Afterwards they wait IDLE_S for the next block: data stages follow one another, and a start takes 0.35 s.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.started: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            _idle.keep(self.started)
            return
        for worker in self.started:  # one may still be at work on what nobody wants any more
            worker.stop()

    def map(self, function: Callable[[Task], Any], tasks: Iterable[Task]) -> Iterator[Any]:
        """`function` of each task, in the order of the tasks.

        `function` stands at the top of a module, tasks and results are JSON values. An UnderstudyError comes back as
        itself; a worker that dies raises ResourceError WORKER_LOST.
        """
        if self.count <= 1:
            yield from map(function, tasks)
            return
        self.started = self.started or [_idle.take() or _Worker() for _ in range(self.count)]
        name = f"{function.__module__}:{function.__qualname__}"
        free: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self.started:
            free.put(worker)

        def call(task: Task) -> Any:
            worker = free.get()
            try:
                return worker.call(name, task)
            finally:
                free.put(worker)

        pending = deque[Future[Any]]()
        with ThreadPoolExecutor(self.count) as threads:
            try:
                for task in tasks:
                    pending.append(threads.submit(call, task))
                    if len(pending) > self.count + 1:  # one result waits to be taken while every worker is busy
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()


class _Worker:
    """One interpreter: a line of JSON in, a line of JSON out."""

    def __init__(self) -> None:
        self.environment = _environment()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment
        )

    def usable(self) -> bool:
        """Whether it lives and sees what a new one would see."""
        return self.process.poll() is None and self.environment == _environment()

    def call(self, name: str, task: Task) -> Any:
        assert self.process.stdin and self.process.stdout
        line = b""
        try:
            self.process.stdin.write(json.dumps([name, task]).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            pass  # it is gone; its exit status says more
        if not line:
            raise _lost(self.process.wait())
        outcome, value = json.loads(line)
        if outcome == "error":
            kind, fields = value
            raise getattr(errors, kind)(*fields)
        if outcome == "bug":
            raise RuntimeError(f"a worker failed\n{value}")
        return value

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                try:
                    pipe.close()
                except OSError:
                    continue  # what was not yet written goes nowhere


def _environment() -> dict[str, str]:
    found = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONUTF8": "1"}
    return {**_KEEP, **os.environ, **found}


class _Idle:
    """Workers between two blocks; who is not taken again within IDLE_S is stopped."""

    def __init__(self) -> None:
        self.workers: list[_Worker] = []
        self.lock = threading.Lock()
        self.timer: threading.Timer | None = None

    def keep(self, workers: list[_Worker]) -> None:
        with self.lock:
            self.workers += workers
            if self.timer:
                self.timer.cancel()
            self.timer = threading.Timer(IDLE_S, self.stop)
            self.timer.daemon = True
            self.timer.start()

    def take(self) -> _Worker | None:
        while True:
            with self.lock:
                worker = self.workers.pop() if self.workers else None
            if worker is None or worker.usable():
                return worker
            worker.stop()

    def stop(self) -> None:
        with self.lock:
            workers, self.workers = self.workers, []
        for worker in workers:
            worker.stop()


_idle = _Idle()
atexit.register(_idle.stop)


def _lost(status: int) -> errors.ResourceError:
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    fix = "give it more memory, or set workers: 1" if status == -signal.SIGKILL else "run it again, or set workers: 1"
    return errors.ResourceError("WORKER_LOST", "worker", f"a worker process {how}", fix)


def serve() -> None:
    """The life of a worker: answer tasks until the pipe closes. What the work prints goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started it decides when it ends
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        name, task = json.loads(line)
        answers.write(json.dumps(_outcome(name, task)).encode() + b"\n")
        answers.flush()


def _outcome(name: str, task: Task) -> tuple[str, Any]:
    module, _, function = name.partition(":")
    try:
        return "value", getattr(importlib.import_module(module), function)(task)
    except errors.UnderstudyError as e:
        return "error", [type(e).__name__, [e.code, e.where, e.what, e.fix]]
    except Exception:
        return "bug", traceback.format_exc()


def join(parts: Iterable[Path], target: Path) -> None:
    """The parts one after another as `target`, synced to disk; each part is removed once it is in."""
    with open(target, "wb") as f:
        for part in parts:
            with open(part, "rb") as source:
                shutil.copyfileobj(source, f, 1 << 20)
            part.unlink()
        f.flush()
        os.fsync(f.fileno())

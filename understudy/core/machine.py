"""What this machine must allow, looked at before it matters, and what it says when it does not: one error of ours.

A project's folder must take files, keep them (fsync), replace them whole and lock them. It is tried, not looked up by
its file system's name: a network disk that does all four is as good as any. No two names that this package writes
differ by case alone, so a disk that does not tell them apart serves too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from understudy.core.records import digest, sync_path
from understudy.errors import ResourceError

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOLCK, errno.EOPNOTSUPP)
TOO_MANY = (errno.EMFILE, errno.ENFILE)
SPACE = "free some; understudy gc shows what can go"
FOLDER = "give the project a folder on a local disk that you may write to"
_NUMBER = re.compile(r"\(os error (\d+)\)")
"""How libraries that are written in Rust quote the system."""


def settle() -> None:
    """A mask that locks the owner out of his own files is mended; one that lets the whole world write is closed."""
    mask = os.umask(0o077)
    if mask & 0o002:
        os.umask(mask & 0o077)


def fingerprint() -> str:
    """12 hex digits that differ between machines on which the same work takes another time."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    gpu = Path("/dev/nvidia0").exists()
    return digest([platform.system(), platform.machine(), os.cpu_count(), round(memory / 2**30), gpu], 12)


def forget_peak() -> None:
    """Let `peak_memory_mb` count from here on, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Most memory that this process has held at once (resident, 1e6 bytes), without the processes that it started.

    Since `forget_peak` on Linux, elsewhere since the process began.
    """
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
        if found:
            return int(found[1]) * 1024 / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


def require_files(count: int) -> None:
    """Raise the limit on open files to `count` where the machine allows it. Raises ResourceError LIMITS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= count:
        return
    if hard != unlimited and hard < count:
        what = f"this process may open {hard} files at once, the work needs {count}"
        raise ResourceError("LIMITS", "open files", what, f"ulimit -n {count}, or lower the services' concurrency")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def probe(folder: Path) -> None:
    """Try in `folder`, which is made, what every run does. Raises ResourceError FS_UNSUITABLE with what failed."""
    doing = "write"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".probe-", dir=folder))
        try:
            for doing, act in PROBES.items():  # noqa: B007 (the name of the one that failed is told)
                act(place)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    except OSError as e:
        if e.errno in (*FULL, *TOO_MANY, errno.EFBIG):
            raise
        raise ResourceError("FS_UNSUITABLE", folder, f"{doing}: {e.strerror or e}", FOLDER) from e


def _write(place: Path) -> None:
    (place / "new").write_bytes(b"new")
    (place / "old").write_bytes(b"old")


def _sync(place: Path) -> None:
    sync_path(place / "new")
    sync_path(place)


def _replace(place: Path) -> None:
    os.replace(place / "new", place / "old")
    if (place / "old").read_bytes() != b"new":
        raise OSError(errno.EIO, "the old content is still there")


def _lock(place: Path) -> None:
    with open(place / "old", "rb") as one, open(place / "old", "rb") as other:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        raise OSError(errno.ENOLCK, "two hold one lock at once")


PROBES: dict[str, Callable[[Path], None]] = {
    "write": _write, "fsync": _sync, "replace a file": _replace, "lock a file": _lock
}  # fmt: skip


def require_room(folder: Path, need: int) -> None:
    """Raises ResourceError DISK_FULL when fewer than `need` bytes are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if free < need:
        what = f"the run needs about {megabytes(need)}, {megabytes(free)} are free"
        raise ResourceError("DISK_FULL", folder, what, SPACE)


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def fault(error: BaseException) -> ResourceError | None:
    """What the machine refused, by an error or by what caused it; None when it is nothing of the machine's."""
    for cause in _causes(error):
        number = _errno(cause)
        where = str(getattr(cause, "filename2", None) or getattr(cause, "filename", None) or Path.cwd())
        if number in FULL:
            return ResourceError("DISK_FULL", where, _full(number, where), SPACE)
        if number == errno.EFBIG:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            what = f"a file may not grow beyond {limit:,} bytes here" if limit >= 0 else "the file is too large here"
            return ResourceError("LIMITS", where, what, "ulimit -f unlimited, or another file system")
        if number in TOO_MANY:
            return ResourceError("LIMITS", where, "too many files are open", "ulimit -n 1024")
        if number in REFUSED and cause is error:
            return ResourceError("FS_UNSUITABLE", where, os.strerror(number), FOLDER)
    if isinstance(error, OSError):
        return ResourceError("OS_ERROR", error.filename or "file", error.strerror or str(error))
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from or while, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _errno(error: BaseException) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    if "database or disk is full" in str(error):  # SQLite
        return errno.ENOSPC
    said = _NUMBER.search(str(error))
    return int(said[1]) if said else 0


def _full(number: int, where: str) -> str:
    """Which of three: the quota, the table of files, or the bytes. What a step had written is removed by now."""
    if number == errno.EDQUOT:
        return "the disk quota is used up"
    about = os.statvfs(next(p for p in (Path(where), *Path(where).absolute().parents) if p.exists()))
    if about.f_files and not about.f_favail:
        return "no more files fit on the file system: its inodes are used up"
    return f"the disk filled up; {megabytes(about.f_bavail * about.f_frsize)} are free now"

"""Every error a user can meet, with its exit code.

UnderstudyError            1
├── ConfigError            2   configuration, usage, plan
├── DataError              3   rows, files, splits
├── RemoteError            4   service LLM, database, hub
├── ResourceError          5   memory, disk, missing extra
├── IntegrityError         6   digests, secrets, unsafe content
├── GateError              7   the verdict says no
└── BusyError             75   another process holds the project
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UnderstudyError(Exception):
    """A situation the user can understand and mend; printed as one line, without a traceback.

    `code` is the stable name (`CFG_TYPE`), `where` the file, row or option, `what` what happened with the
    value seen, `fix` the next action.
    """

    exit_code = 1

    def __init__(self, code: str, where: object, what: str, fix: str = "") -> None:
        self.code, self.where, self.what, self.fix = code, str(where), what, fix
        super().__init__(self.line())

    def line(self) -> str:
        """`error[CODE] where: what; fix` with control characters escaped, so that it stays one line."""
        text = f"error[{self.code}] {self.where}: {self.what}" + (f"; {self.fix}" if self.fix else "")
        return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)

    def to_dict(self) -> dict[str, object]:
        return {"code": self.code, "where": self.where, "what": self.what, "fix": self.fix, "exit": self.exit_code}


class ConfigError(UnderstudyError):
    exit_code = 2


class DataError(UnderstudyError):
    exit_code = 3


class RemoteError(UnderstudyError):
    exit_code = 4


class ResourceError(UnderstudyError):
    exit_code = 5


class IntegrityError(UnderstudyError):
    exit_code = 6


class GateError(UnderstudyError):
    exit_code = 7


class BusyError(UnderstudyError):
    exit_code = 75


@contextmanager
def boundary(kind: type[UnderstudyError], code: str, where: object, fix: str = "") -> Iterator[None]:
    """Attribute whatever escapes from foreign code (a plugin, a driver) to one error of ours."""
    try:
        yield
    except UnderstudyError:
        raise
    except Exception as e:
        raise kind(code, where, f"{type(e).__name__}: {e}", fix) from e


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turn a missing optional package into the line that installs it."""
    try:
        yield
    except ModuleNotFoundError as e:
        raise ResourceError(
            "EXTRA_MISSING", e.name or name, "is not installed", f"pip install 'understudy[{name}]'"
        ) from e

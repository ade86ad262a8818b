"""The boundary of the command line: signals, exit codes, one line for every situation of the user's."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import warnings

from understudy.cli import bias, curving, deciding, exchange, foretelling, operating, project, rows, serving, targets  # noqa: F401  (each joins)
from understudy.cli.app import app
from understudy.core import machine
from understudy.errors import ConfigError, RemoteError, ResourceError, UnderstudyError


def _take_directory(args: list[str]) -> list[str]:
    """Pull `-C DIR` out of the arguments, wherever it stands, and go there."""
    rest: list[str] = []
    directory: str | None = None
    pending = iter(args)
    for arg in pending:
        if arg == "-C":
            directory = next(pending, None)
            if directory is None:
                raise ConfigError("USAGE", "-C", "needs a folder")
        elif arg.startswith("-C") and not arg.startswith("--"):
            directory = arg[2:].removeprefix("=")
        elif arg == "--":
            rest += [arg, *pending]
        else:
            rest.append(arg)
    if directory is not None:
        try:
            os.chdir(directory)
        except OSError as e:
            raise ConfigError("DIRECTORY", directory, e.strerror or str(e), "give an existing folder") from None
    return rest


def _speak_utf8() -> None:
    """File names and texts are UTF-8 in every locale; what the console cannot show is escaped.

    Python chooses the encoding of file names before any of our code runs, so this process starts itself anew.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.getfilesystemencoding() != "utf-8":
        shown = f"{sys.stdout.encoding if sys.stdout else 'ascii'}:backslashreplace"
        environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": shown}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


class _Signalled(BaseException):
    """A signal asked for an orderly stop. No KeyboardInterrupt: the parser would turn that into exit code 130."""

    def __init__(self, number: int) -> None:
        self.number = number


def _listen() -> None:
    """SIGTERM and SIGHUP stop as orderly as Ctrl-C does; a second signal stops at once.

    A signal that was ignored stays so: under nohup a logout stops nothing.
    """
    stops = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    heard = [s for s in stops if signal.getsignal(s) is not signal.SIG_IGN]

    def handle(number: int, frame: object) -> None:
        for s in heard:
            signal.signal(s, signal.SIG_DFL)
        raise _Signalled(number)

    for s in heard:
        signal.signal(s, handle)


def _fail(e: UnderstudyError, as_json: bool) -> int:
    text = json.dumps(e.to_dict(), ensure_ascii=True) if as_json else e.line()
    encoding = sys.stderr.encoding or "ascii"
    sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    return e.exit_code


def main() -> None:
    """Entry point: one line and an exit code for every situation of the user's, never a traceback."""
    _speak_utf8()
    _listen()
    machine.settle()
    # transformers deprecates its own names: nothing a user could mend.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\..*")
    args = sys.argv[1:]
    as_json = "--json" in args
    try:
        code = app(_take_directory(args) or ["--help"], prog_name="understudy", standalone_mode=False)
        sys.stdout.flush()
    except UnderstudyError as e:
        code = _fail(_disk_full(e) or e, as_json)
    except _Signalled as e:
        serving = {"serve", "simulate", "watch"} & set(args)
        sys.stderr.write("stopped\n" if serving else "interrupted; finished steps are kept, run again to go on\n")
        code = 128 + e.number
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except MemoryError:
        code = _fail(ResourceError("OUT_OF_MEMORY", "run", "memory ran out", "use a smaller size or batch"), as_json)
    except Exception as e:
        refused = machine.fault(e)
        if not refused and not _is_usage_error(e):
            raise
        code = _fail(refused or ConfigError("USAGE", "understudy", _message(e), "understudy --help"), as_json)
    sys.exit(code if isinstance(code, int) else 0)


def _disk_full(e: UnderstudyError) -> UnderstudyError | None:
    """A full disk, where a library called it something else."""
    found = machine.fault(e) if isinstance(e, RemoteError) else None
    return found if found and found.code == "DISK_FULL" else None


def _is_usage_error(e: Exception) -> bool:
    return hasattr(e, "format_message") and hasattr(e, "exit_code")


def _message(e: Exception) -> str:
    text: str = e.format_message()  # type: ignore[attr-defined]
    return text

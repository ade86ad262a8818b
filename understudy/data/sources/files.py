"""The files that a source names: found, checked, and named in places and digests.

A SourceFile is one thing to read, wherever it lies: it opens as a seekable stream, says its state before and after, and
has a digest that follows its content.
"""

from __future__ import annotations

import glob
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from understudy.config import OWN_FOLDERS, SourceConfig
from understudy.core.records import sha256_file
from understudy.errors import ConfigError, DataError, IntegrityError


class SourceFile(Protocol):
    """One file of a source."""

    @property
    def label(self) -> str:
        """Its name in places, digests and meta; free of host, user and the project's own folder."""

    @property
    def name(self) -> str:
        """The last part of its path; the suffix names the format."""

    @property
    def address(self) -> str:
        """Equal only for the same file."""

    def open(self) -> BufferedReader:
        """Its bytes from the start, seekable."""

    def state(self) -> object:
        """What changes when the content changes; cheap."""

    def digest(self) -> str:
        """What the run binds: equal for equal content."""


class LocalFile:
    """A file of this machine."""

    def __init__(self, label: str, path: Path) -> None:
        self.label, self.path = label, path
        self.name, self.address = path.name, str(path)

    def open(self) -> BufferedReader:
        """Raises ConfigError FILE_DENIED."""
        try:
            return open(self.path, "rb")
        except PermissionError as e:
            raise ConfigError("FILE_DENIED", self.label, "this user may not read the file", "change its mode") from e
        except FileNotFoundError as e:
            raise changed(self.label) from e

    def state(self) -> object:
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return None
        return now.st_size, now.st_mtime_ns, now.st_ino

    def digest(self) -> str:
        try:
            return sha256_file(self.path)
        except PermissionError as e:
            raise ConfigError("FILE_DENIED", self.label, "this user may not read the file", "change its mode") from e
        except FileNotFoundError as e:
            raise changed(self.label) from e


def changed(label: str) -> DataError:
    """The error of a file that grew, shrank or went away while it was read."""
    return DataError("FILE_CHANGED", label, "the file changed while it was read", "run again when it is at rest")


def local_files(source: SourceConfig, project: Path) -> list[LocalFile]:
    """Each local file of a source, sorted; a label is relative to the project, or the bare name.

    Raises ConfigError SOURCE_NOT_FOUND, FILE_SPECIAL, PATH_CONFLICT, PATH_NAME; IntegrityError PATH_ESCAPE.
    """
    text, root = _plain_path(source.path or ""), project.resolve()
    absolute = os.path.isabs(text)
    if not absolute and os.path.normpath(text).split(os.sep)[0] == os.pardir:
        raise _escape(text)
    try:
        exact = os.path.lexists(root / text)
        names = [text] if exact else _matches(text, root)
    except (OSError, ValueError) as e:
        raise ConfigError("PATH_NAME", text[:80], str(e), "give a path that this system can hold") from e
    if any(len(os.fsencode(part)) > 255 for part in Path(text).parts) or "\0" in text:
        raise ConfigError("PATH_NAME", text[:80], "no file can have this name", "give a shorter name")
    files: list[LocalFile] = []
    for name in names:
        path = _resolved(root / name, name)
        if not absolute and not path.is_relative_to(root):
            raise _escape(name)
        if not exact and path.is_dir():
            continue
        _refuse_special(path, name)
        shown = Path(os.path.normpath(root / name))
        label = shown.relative_to(root).as_posix() if shown.is_relative_to(root) else shown.name
        files.append(LocalFile(label, path))
    if not files:
        raise ConfigError("SOURCE_NOT_FOUND", text, "no file is there", "give a file or glob relative to the project")
    return files


def _plain_path(text: str) -> str:
    """The path of a file:// URL, or the text itself."""
    if not text.startswith("file://"):
        return text
    parts = urlsplit(text, allow_fragments=False)
    if parts.netloc not in ("", "localhost"):
        raise ConfigError("URL_MALFORMED", text[:80], "a file URL with a host", "write file:///folder/file")
    return url2pathname(parts.path)


def _matches(pattern: str, root: Path) -> list[str]:
    """What a glob finds, sorted; a relative one leaves out what the project writes itself."""
    names = sorted(glob.glob(pattern, root_dir=root, recursive=True))
    return [n for n in names if os.path.isabs(n) or os.path.normpath(n).split(os.sep)[0] not in OWN_FOLDERS]


def _resolved(path: Path, name: str) -> Path:
    try:
        return path.resolve(strict=True)
    except RuntimeError as e:
        raise ConfigError("PATH_CONFLICT", name, "the symbolic links form a loop", "remove one of them") from e
    except OSError as e:
        what = f"a symbolic link to nowhere ({e.strerror})"
        raise ConfigError("FILE_SPECIAL", name, what, "point it at a file, or give the file itself") from e


def _escape(name: str) -> IntegrityError:
    fix = "move the file into the project, or give an absolute path"
    return IntegrityError("PATH_ESCAPE", name, "the path leaves the project", fix)


def _refuse_special(path: Path, name: str) -> None:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        fix = f"give a glob such as {name.rstrip('/')}/*.jsonl" if stat.S_ISDIR(mode) else "give a regular file"
        raise ConfigError("FILE_SPECIAL", name, f"this is {kind}", fix)

"""Packed files as streams: gzip and zstd, zip and tar. Nothing is ever extracted, by name or otherwise.

An archive is judged whole before its first member is read. What unpacks beyond RATIO or `max_unpacked_mb`, and an
archive inside an archive, is refused early; damage is found where it is.
"""

from __future__ import annotations

import io
import posixpath
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from gzip import GzipFile
from io import BufferedReader
from typing import IO, Any, NamedTuple, cast

from understudy.config import SourceConfig
from understudy.errors import DataError, IntegrityError, extra

RATIO = 200
"""Bytes out for each byte in, beyond the first FREE bytes."""
FREE = 16 << 20
MAX_MEMBERS = 10_000
MAX_DIRECTORY = 8 << 20
"""Bytes of a zip's directory; the members' names and sizes stand there."""
MAX_HEADER = 1 << 20
"""Bytes of one extended tar header; a long name stands there."""
GZIP, ZSTD, ZIP, TAR = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", (b"PK\x03\x04", b"PK\x05\x06"), b"ustar"
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".tgz": "gzip"}
SPECIAL = re.compile(r"^([a-zA-Z]:|[/\\])|\\|\0")


class Part(NamedTuple):
    """One stream of rows: its place, its name (whose suffix names the format) and its bytes."""

    label: str
    name: str
    stream: BufferedReader


@dataclass(slots=True)
class Budget:
    """What a file may unpack to, shared by all its members."""

    label: str
    limit: int
    size: int
    """Bytes of the packed file."""
    out: int = 0

    def spend(self, count: int) -> None:
        """Raises IntegrityError ARCHIVE_LIMIT."""
        self.out += count
        if self.out > self.limit or self.out > FREE + RATIO * self.size:
            raise _limit(self.label, f"it unpacks to more than {self.out:,} bytes from {self.size:,}")


def unpack(handle: BufferedReader, name: str, label: str, source: SourceConfig) -> Iterator[Part]:
    """The file itself, or what is packed in it, as the suffix says; `members` of the source chooses within archives.

    A part must be read before the next is asked for. Raises IntegrityError ARCHIVE_UNSAFE, ARCHIVE_LIMIT; DataError
    FILE_KIND, FILE_LOCKED, FILE_CORRUPT.
    """
    stem, suffix = posixpath.splitext(name)
    size = handle.seek(0, io.SEEK_END)
    handle.seek(0)
    budget = Budget(label, source.max_unpacked_mb << 20, size)
    kind, suffix = COMPRESSED.get(suffix.lower(), ""), suffix.lower()
    if suffix == ".tgz" or (kind and stem.lower().endswith(".tar")) or suffix == ".tar":
        yield from _tar(handle, kind, budget, source)
    elif kind:
        stream = inflate(handle, kind, budget)
        _refuse_nested(stream, label)
        yield Part(label, stem, stream)
    elif suffix == ".zip":
        yield from _zip(handle, budget, source)
    else:
        yield Part(label, name, handle)


def spooled(stream: IO[bytes]) -> IO[bytes]:
    """A seekable copy in a temporary file without a name."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115
    while chunk := stream.read(1 << 20):
        copy.write(chunk)
    copy.seek(0)
    return copy


class _Unpacked(io.RawIOBase):
    """Bytes as they come out of a decompressor, counted; damage becomes DataError FILE_CORRUPT."""

    def __init__(self, read: Callable[[int], bytes], budget: Budget) -> None:
        self._read, self._budget = read, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._read(len(buffer))
        except DAMAGE as e:
            raise _corrupt(self._budget.label, e) from e
        self._budget.spend(len(data))
        buffer[: len(data)] = data
        return len(data)


def _stream(read: Callable[[int], bytes], budget: Budget) -> BufferedReader:
    return cast(BufferedReader, BufferedReader(_Unpacked(read, budget), 1 << 18))


# pyarrow speaks of damage by OSError, as gzip does.
DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError)
# Of a zip's headers: a version that nobody knows, a name that is not in the encoding that it states.
ZIP_DAMAGE = (*DAMAGE, NotImplementedError, ValueError)


def inflate(handle: BufferedReader, kind: str, budget: Budget) -> BufferedReader:
    """The bytes of gzip or zstd data, in bounded memory. Raises DataError FILE_KIND when it is no such data."""
    if not handle.peek(4).startswith(GZIP if kind == "gzip" else ZSTD):
        what = f"the suffix says {kind}, the bytes do not"
        raise DataError("FILE_KIND", budget.label, what, "give the file its right suffix")
    if kind == "gzip":
        return _stream(GzipFile(fileobj=handle, mode="rb").read, budget)
    with extra("parquet"):
        import pyarrow
    stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(handle, mode="r"), "zstd")
    return _stream(stream.read, budget)


def _refuse_nested(stream: BufferedReader, label: str) -> None:
    head = stream.peek(512)[:512]
    if head.startswith((GZIP, ZSTD, *ZIP)) or head[257:262] == TAR:
        raise _limit(label, "it holds an archive inside an archive")


# --- zip


def _zip(handle: BufferedReader, budget: Budget, source: SourceConfig) -> Iterator[Part]:
    if not handle.peek(4).startswith(ZIP):
        raise DataError("FILE_KIND", budget.label, "the suffix says zip, the bytes do not", "give the right suffix")
    _check_directory(handle, budget)
    try:
        archive = zipfile.ZipFile(handle)
    except ZIP_DAMAGE as e:
        raise _corrupt(budget.label, e) from e
    infos = archive.infolist()
    if any(info.filename == "[Content_Types].xml" for info in infos):
        raise DataError("FILE_KIND", budget.label, "this is an Office document", "export its rows as CSV")
    _check_names([info.orig_filename for info in infos], budget.label)
    for info in infos:
        _check_zip_member(info, budget)
    declared = sum(info.file_size for info in infos)
    if declared > budget.limit or declared > FREE + RATIO * budget.size:
        raise _limit(budget.label, f"it unpacks to {declared:,} bytes from {budget.size:,}")
    for info in infos:
        if not info.is_dir() and _chosen(info.filename, source):
            try:
                member = archive.open(info)
            except ZIP_DAMAGE as e:
                raise _corrupt(budget.label, e) from e
            yield _member(info.filename, _stream(member.read, budget), budget)


def _check_directory(handle: BufferedReader, budget: Budget) -> None:
    """Refuse a directory that would fill the memory before it is read. The last record of a zip says its size."""
    tail = min(budget.size, 22 + 0xFFFF)
    handle.seek(-tail, io.SEEK_END)
    end = handle.read(tail)
    handle.seek(0)
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) - at < 22:
        raise DataError("FILE_CORRUPT", budget.label, "the zip's directory is missing", "copy the file again")
    count, size = int.from_bytes(end[at + 10 : at + 12], "little"), int.from_bytes(end[at + 12 : at + 16], "little")
    # 0xFFFF says that the number stands in the 64-bit record: more than MAX_MEMBERS in any case.
    if count > MAX_MEMBERS or size > MAX_DIRECTORY:
        raise _limit(budget.label, f"it holds more than {MAX_MEMBERS:,} members, or names of over {MAX_DIRECTORY:,}")


def _check_zip_member(info: zipfile.ZipInfo, budget: Budget) -> None:
    if info.flag_bits & 0x1:
        raise DataError("FILE_LOCKED", budget.label, f"{info.filename!r} is encrypted", "unlock it first")
    kind = info.external_attr >> 28
    # The upper half of the attributes is the Unix mode: 8 is a regular file, 4 a folder, 0 none given.
    if info.create_system == 3 and kind not in (0, 4, 8):
        raise _unsafe(budget.label, f"{info.filename!r} is a link or a device")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        what = f"{info.filename!r} is packed by method {info.compress_type}"
        raise DataError("FILE_KIND", budget.label, what, "pack it with deflate")


# --- tar


class _Header(tarfile.TarInfo):
    """A tar header that refuses long names of megabytes, which are read into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, b"L", b"K", b"X") and header.size > MAX_HEADER:
            raise _limit("tar", f"a header of {header.size:,} bytes")
        return header


def _tar(handle: BufferedReader, kind: str, budget: Budget, source: SourceConfig) -> Iterator[Part]:
    names: list[str] = []
    looking = Budget(budget.label, budget.limit, budget.size)
    for _, header in _headers(handle, kind, looking):
        if not (header.isdir() or header.isreg()) or header.issparse():
            raise _unsafe(budget.label, f"{header.name!r} is a link, a device or sparse")
        names.append(header.name)
        if len(names) > MAX_MEMBERS:
            raise _limit(budget.label, f"it holds more than {MAX_MEMBERS:,} members")
        looking.spend(header.size if not kind else 0)
    _check_names(names, budget.label)
    for archive, header in _headers(handle, kind, budget):
        member = archive.extractfile(header) if header.isreg() else None
        if member and _chosen(header.name, source):
            yield _member(header.name, _stream(member.read, _free(budget)), budget)


def _free(budget: Budget) -> Budget:
    """A budget that only names the file: the stream below a tar's members is counted already."""
    return Budget(budget.label, 1 << 62, 1 << 50)


def _headers(handle: BufferedReader, kind: str, budget: Budget) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Each header in file order, from the start; a member can be read while its header is the current one."""
    handle.seek(0)
    stream = inflate(handle, kind, budget) if kind else handle
    if stream.peek(512)[257:262] != TAR:
        what = "the suffix says tar, the bytes do not"
        raise DataError("FILE_KIND", budget.label, what, "give the file its right suffix")
    try:
        archive = tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header)  # noqa: SIM115
        while (header := archive.next()) is not None:
            # tarfile remembers every header; a million of them is the bomb.
            with suppress(AttributeError):
                archive.members.clear()  # type: ignore[attr-defined]
            yield archive, header
    except DAMAGE as e:
        raise _corrupt(budget.label, e) from e


# --- both


def _check_names(names: Iterable[str], label: str) -> None:
    seen: set[str] = set()
    for name in names:
        plain = posixpath.normpath(name)
        if SPECIAL.search(name) or plain.split("/")[0] == "..":
            raise _unsafe(label, f"the member {name[:80]!r} leaves the archive")
        if plain in seen:
            raise _unsafe(label, f"two members are named {name[:80]!r}")
        seen.add(plain)
    if len(seen) > MAX_MEMBERS:
        raise _limit(label, f"it holds more than {MAX_MEMBERS:,} members")


def _chosen(name: str, source: SourceConfig) -> bool:
    return source.members is None or fnmatchcase(posixpath.normpath(name), source.members)


def _member(name: str, stream: BufferedReader, budget: Budget) -> Part:
    label = f"{budget.label}!{posixpath.normpath(name)}"
    if posixpath.splitext(name)[1].lower() in (*COMPRESSED, ".zip", ".tar"):
        raise _limit(label, "it is packed inside an archive")
    _refuse_nested(stream, label)
    return Part(label, posixpath.basename(name), stream)


def _unsafe(label: str, what: str) -> IntegrityError:
    return IntegrityError("ARCHIVE_UNSAFE", label, what, "do not trust this archive; pack plain files anew")


def _limit(label: str, what: str) -> IntegrityError:
    return IntegrityError("ARCHIVE_LIMIT", label, what, "unpack it yourself where you trust it")


def _corrupt(label: str, error: Exception) -> DataError:
    text = str(error).split("\n")[0][:200] or type(error).__name__
    return DataError("FILE_CORRUPT", label, text, "copy or pack the file again")

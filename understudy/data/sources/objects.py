"""Files in an object store, by fsspec URL: `s3://bucket/prefix/*.jsonl.gz`.

A glob means what it means on this machine. An object's digest is its ETag and size; where a store gives no ETag, its
generation or checksum, and where it gives none of these, the sha256 of its bytes. Messages name URLs, never keys.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from io import BufferedReader
from typing import Any, cast

from understudy.config import SourceConfig, StorageConfig
from understudy.core.records import digest
from understudy.data.sources.files import changed
from understudy.data.sources.sql import resolve_env
from understudy.errors import ConfigError, DataError, RemoteError, UnderstudyError, extra

SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
VERSIONS = ("ETag", "etag", "md5Hash", "crc32c", "generation", "content_md5")
"""What stores call the version of an object's content, best first."""
S3_ONLY = ("region", "key", "secret", "token", "anonymous")
"""Settings of `storage` that no other store takes from here."""
BLOCK = 8 << 20
CHECK_BUCKET = "check its name and storage.endpoint_url"


def scheme_of(path: str) -> str:
    """The scheme of a URL in lower case; empty for a path."""
    found = URL.match(path)
    return found[1].lower() if found else ""


class RemoteFile:
    """An object of a store."""

    def __init__(self, label: str, path: str, store: Any) -> None:
        self.label = self.address = label
        self.name = label.rsplit("/", 1)[-1]
        self._path, self._store = path, store

    def open(self) -> BufferedReader:
        with store_errors(self.label):
            handle = self._store.open(self._path, "rb", block_size=BLOCK)
        return cast(BufferedReader, BufferedReader(_Guarded(handle, self.label), 1 << 18))

    def state(self) -> object:
        with store_errors(self.label):
            try:
                info = self._store.info(self._path)
            except FileNotFoundError:
                return None
        return [info.get("size"), *(str(info[key]) for key in VERSIONS if info.get(key))]

    def digest(self) -> str:
        """Raises DataError FILE_CHANGED when the object went away."""
        known = self.state()
        if known is None:
            raise changed(self.label)
        if isinstance(known, list) and len(known) > 1:
            return digest(["object", *known[:2]])
        with self.open() as handle:
            return hashlib.file_digest(cast(Any, handle), "sha256").hexdigest()


class _Guarded(io.RawIOBase):
    """A store's file whose errors are ours."""

    def __init__(self, handle: Any, label: str) -> None:
        self._handle, self._label = handle, label

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._handle.seek(offset, whence))

    def tell(self) -> int:
        return int(self._handle.tell())

    def readinto(self, buffer: Any) -> int:
        with store_errors(self._label):
            try:
                data = self._handle.read(len(buffer))
            except FileNotFoundError as e:
                raise changed(self._label) from e
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._handle.close()
        super().close()


def remote_files(source: SourceConfig) -> list[RemoteFile]:
    """Each object that a URL or a glob names, sorted.

    Raises ConfigError SOURCE_NOT_FOUND, URL_SCHEME, STORE_SETTING; RemoteError STORE_BUCKET, STORE_DENIED,
    STORE_CREDENTIALS, STORE_UNREACHABLE, STORE_ERROR, TIMEOUT; ResourceError EXTRA_MISSING.
    """
    url = source.path or ""
    scheme, rest = scheme_of(url), url.split("://", 1)[1]
    store = open_store(url, source.storage)
    parts = rest.split("/")
    fixed = next((i for i, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts))
    if fixed == 0:
        raise ConfigError("URL_MALFORMED", url, "the bucket is a pattern", "name one bucket")
    with store_errors(url):
        if fixed == len(parts):
            names = _exact(store, rest)
        else:
            names = sorted(n for n in store.find("/".join(parts[:fixed])) if matches(n.split("/"), parts))
        if not names and not store.exists(parts[0]):
            raise RemoteError(
                "STORE_BUCKET", url, f"there is no bucket {parts[0]!r}", "check its name and the endpoint"
            )
    if not names:
        raise ConfigError(
            "SOURCE_NOT_FOUND", url, "no object is there", "give an object, or a glob such as .../*.jsonl"
        )
    return [RemoteFile(f"{scheme}://{name}", name, store) for name in names]


def _exact(store: Any, path: str) -> list[str]:
    """The object itself, if it is there; a store that does not answer raises."""
    try:
        return [path] if store.info(path).get("type") == "file" else []
    except FileNotFoundError:
        return []


def matches(path: Sequence[str], glob: Sequence[str]) -> bool:
    """Whether a path fits a glob, both by folder, as on disk: wildcards pass over dot names, `**` goes down."""
    if not path or not glob:
        return not path and not glob
    hidden = path[0].startswith(".")
    if glob[0] == "**":
        ended = len(glob) == 1 and len(path) == 1
        return matches(path, glob[1:]) or (not hidden and (ended or matches(path[1:], glob)))
    if hidden and not glob[0].startswith("."):
        return False
    return fnmatchcase(path[0], glob[0]) and matches(path[1:], glob[1:])


def open_store(url: str, storage: StorageConfig) -> Any:
    """The fsspec file system of a URL.

    Raises ConfigError URL_SCHEME, STORE_SETTING, ENV_MISSING; ResourceError EXTRA_MISSING.
    """
    scheme = scheme_of(url)
    if scheme not in SCHEMES:
        known = ", ".join(SCHEMES)
        raise ConfigError("URL_SCHEME", url[:80], f"{scheme}: is no object store that is known here", f"one of {known}")
    options = _options(scheme, storage, url)
    with extra("remote"):
        import fsspec
    try:
        return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError as e:
        what = f"{scheme}:// needs {SCHEMES[scheme]}"
        raise ConfigError("URL_SCHEME", url, what, f"pip install {SCHEMES[scheme]}") from e


def _options(scheme: str, storage: StorageConfig, where: str) -> dict[str, Any]:
    """What the file system is made with; gs and abfs take their credentials from the environment, and no others."""
    if scheme != "s3":
        if given := [f"storage.{name}" for name in S3_ONLY if getattr(storage, name)]:
            what = f"{scheme}:// does not take {', '.join(given)}"
            raise ConfigError("STORE_SETTING", where, what, "leave it out; credentials come from the environment")
        return {"endpoint_url": resolve_env(storage.endpoint_url, where)} if storage.endpoint_url else {}
    secrets = {name: getattr(storage, name) for name in ("key", "secret", "token")}
    options: dict[str, Any] = {name: resolve_env(text, where) for name, text in secrets.items() if text}
    if storage.endpoint_url:
        options["endpoint_url"] = resolve_env(storage.endpoint_url, where)
    if storage.region:
        options["client_kwargs"] = {"region_name": storage.region}
    patience = {"connect_timeout": storage.timeout_s, "read_timeout": storage.timeout_s}
    options["config_kwargs"] = {**patience, "retries": {"max_attempts": 2, "mode": "standard"}}
    return {**options, "anon": storage.anonymous, "default_fill_cache": False}


CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError")
LATE = ("ConnectTimeoutError", "ReadTimeoutError", "TimeoutError", "FSTimeoutError", "ServerTimeoutError")


@contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Turn what a store's client raises into one line: who is to act, and no secret."""
    try:
        yield
    except UnderstudyError:
        raise
    except FileNotFoundError as e:
        if "bucket" in str(e).lower():
            raise RemoteError(
                "STORE_BUCKET", where, "there is no such bucket", "check its name and the endpoint"
            ) from e
        raise ConfigError("SOURCE_NOT_FOUND", where, "no object is there", "check the URL") from e
    except PermissionError as e:
        raise RemoteError("STORE_DENIED", where, _words(e), "check the keys and what they may do") from e
    except Exception as e:
        raise _refusal(e, where) from e


def _refusal(error: Exception, where: str) -> DataError | RemoteError:
    names = {kind.__name__ for kind in type(error).__mro__}
    if "FileExpired" in names or "PreconditionFailed" in str(error):
        return changed(where)
    if names & set(CREDENTIALS):
        fix = "set storage.key and storage.secret by ${env:NAME}, or storage.anonymous"
        return RemoteError("STORE_CREDENTIALS", where, "no credentials were found", fix)
    if names & set(LATE):
        return RemoteError(
            "TIMEOUT", where, "the store did not answer in time", "run again, or raise storage.timeout_s"
        )
    if names & {"EndpointConnectionError", "ClientConnectorError", "ConnectionError", "HTTPClientError"}:
        return RemoteError("STORE_UNREACHABLE", where, _words(error), "check storage.endpoint_url and run again")
    return RemoteError("STORE_ERROR", where, _words(error), "run again; if it stays, ask who runs the store")


def _words(error: Exception) -> str:
    """The first line of the client's own words, without query strings, which may be signed."""
    return re.sub(r"\?\S*", "?***", str(error).split("\n")[0])[:200] or type(error).__name__

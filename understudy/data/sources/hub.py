"""Files of a data set on the Hugging Face Hub, at one commit.

Only a full commit hash is read: a branch or tag moves. Nothing of a repository is ever run. The list of files is asked
once and kept in the project's cache; each file is kept there too, and its bytes must have the hash that the list gives.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config import SourceConfig
from understudy.core.records import digest
from understudy.data.sources.formats import format_of
from understudy.data.sources.sql import resolve_env
from understudy.errors import IntegrityError, RemoteError, UnderstudyError, extra

if TYPE_CHECKING:
    from huggingface_hub import HfApi

COMMIT = re.compile(r"[0-9a-f]{40}")
SCRIPT = ".py"


class HubFile:
    """A file of a data set, downloaded when it is opened."""

    def __init__(self, source: SourceConfig, project: Path, path: str, oid: str) -> None:
        self._source, self._project, self._path, self._oid = source, project, path, oid
        self.label = self.address = f"hub:{source.repo}@{(source.revision or '')[:8]}/{path}"
        self.name = path.rsplit("/", 1)[-1]

    def open(self) -> BufferedReader:
        """Raises RemoteError HUB_*; IntegrityError HUB_DIGEST when the bytes are not the listed ones."""
        path = self._local()
        found = _oid(path, len(self._oid) == 64)
        if found != self._oid:
            path.unlink()
            what = f"the bytes have the hash {found[:12]}, the commit says {self._oid[:12]}"
            raise IntegrityError(
                "HUB_DIGEST", self.label, what, "run again; if it stays, do not trust what lies between"
            )
        return open(path, "rb")

    def _local(self) -> Path:
        """The file in the cache, fetched if need be."""
        folder = _folder(self._source, self._project) / "files"
        with _errors(self._source):
            from huggingface_hub import hf_hub_download

            return Path(
                hf_hub_download(
                    str(self._source.repo), self._path, repo_type="dataset", revision=self._source.revision,
                    local_dir=folder, endpoint=_endpoint(), token=_token(self._source),
                    etag_timeout=self._source.timeout_s,
                )
            )  # fmt: skip

    def state(self) -> object:
        return self._oid

    def digest(self) -> str:
        return digest(["hub", self._source.repo, self._path, self._oid])


def hub_files(source: SourceConfig, project: Path) -> list[HubFile]:
    """The files of the data set that `path` names (all that have a known format without it), sorted.

    Raises RemoteError HUB_REVISION, HUB_MISSING, HUB_GATED, HUB_DENIED, HUB_OFFLINE, HUB_UNREACHABLE, HUB_EMPTY;
    IntegrityError REMOTE_CODE.
    """
    where = f"hub:{source.repo}"
    if not COMMIT.fullmatch(source.revision or ""):
        raise _moving(source, where)
    listed = _listing(source, project)
    chosen = {path: oid for path, oid in listed.items() if _chosen(path, source)}
    if scripts := sorted(path for path in chosen if path.endswith(SCRIPT)):
        raise _code(where, scripts[0])
    if not chosen:
        scripts = sorted(path for path in listed if path.endswith(SCRIPT))
        if scripts:
            raise _code(where, scripts[0])
        shown = ", ".join(sorted(listed)[:10])
        raise RemoteError("HUB_EMPTY", where, f"no file matches; there are {shown}", "mend `path`")
    return [HubFile(source, project, path, oid) for path, oid in sorted(chosen.items())]


def _chosen(path: str, source: SourceConfig) -> bool:
    if source.path is None:
        return not path.startswith(".") and format_of(path, source) not in ("", "text")
    return fnmatchcase(path, source.path)


def _code(where: str, script: str) -> IntegrityError:
    fix = "code of a data set is never run; name its data files by `path`, or convert it elsewhere"
    return IntegrityError("REMOTE_CODE", where, f"this data set is made by the script {script}", fix)


def _moving(source: SourceConfig, where: str) -> RemoteError:
    """The refusal of a branch or tag, with the commit that it is at now."""
    with _errors(source):
        found = _api(source).dataset_info(str(source.repo), revision=source.revision, timeout=source.timeout_s)
    what = f"{source.revision!r} is a branch or tag, which moves; it is at {found.sha} now"
    return RemoteError("HUB_REVISION", where, what, f"revision: {found.sha}")


def _listing(source: SourceConfig, project: Path) -> dict[str, str]:
    """Path -> hash of each file of the commit: sha256 of large files, git's own of small ones."""
    kept = _folder(source, project) / "files.json"
    if kept.is_file():
        value: dict[str, str] = json.loads(kept.read_text("utf-8"))
        return value
    with _errors(source):
        from huggingface_hub.hf_api import RepoFile

        tree = _api(source).list_repo_tree(
            str(source.repo), repo_type="dataset", revision=source.revision, recursive=True
        )
        files = [entry for entry in tree if isinstance(entry, RepoFile)]
        value = {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in files}
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(value, sort_keys=True), "utf-8")
    partial.replace(kept)
    return value


def _folder(source: SourceConfig, project: Path) -> Path:
    return project / "cache" / "hub" / digest([source.repo, _endpoint()], 12) / str(source.revision)


def _oid(path: Path, large: bool) -> str:
    """sha256 of the bytes, or git's hash of a blob: sha1 over `blob <size>`, a zero byte and the bytes."""
    with open(path, "rb") as f:
        if large:
            return hashlib.file_digest(f, "sha256").hexdigest()
        running = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while chunk := f.read(1 << 20):
            running.update(chunk)
    return running.hexdigest()


def _api(source: SourceConfig) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=_endpoint(), token=_token(source))


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _token(source: SourceConfig) -> str | bool:
    """The token that the configuration names; no other is sent."""
    return resolve_env(source.token, f"hub:{source.repo}") if source.token else False


@contextmanager
def _errors(source: SourceConfig) -> Iterator[None]:
    """Turn what the Hub's client raises into one line that says who is to act."""
    with extra("hub"):
        from huggingface_hub import errors
        from huggingface_hub.constants import is_offline_mode
    where = f"hub:{source.repo}"
    try:
        yield
    except UnderstudyError:
        raise
    except errors.GatedRepoError as e:
        fix = "accept its terms on its page, and set token: ${env:HF_TOKEN}"
        raise RemoteError("HUB_GATED", where, "the data set asks for consent first", fix) from e
    except errors.RevisionNotFoundError as e:
        raise RemoteError(
            "HUB_REVISION", where, f"there is no commit {source.revision}", "give one of its commits"
        ) from e
    except errors.RepositoryNotFoundError as e:
        fix = "check its name; a private one needs token: ${env:HF_TOKEN}"
        raise RemoteError("HUB_MISSING", where, "there is no such data set, or not for this token", fix) from e
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as e:
        offline = is_offline_mode()
        code, fix = ("HUB_OFFLINE", "unset HF_HUB_OFFLINE") if offline else ("HUB_UNREACHABLE", "run again")
        raise RemoteError(code, where, _words(e), fix) from e
    except errors.HfHubHTTPError as e:
        status = getattr(e.response, "status_code", 0)
        code = "HUB_DENIED" if status in (401, 403) else "HUB_MISSING" if status == 404 else "HUB_UNREACHABLE"
        raise RemoteError(code, where, _words(e), "check the token and run again") from e
    except Exception as e:
        raise RemoteError("HUB_UNREACHABLE", where, _words(e), "check HF_ENDPOINT and run again") from e


def _words(error: Any) -> str:
    """The first line of the client's own words, without query strings, which may be signed."""
    lines = [line for line in str(error).split("\n") if line.strip()] or [type(error).__name__]
    return re.sub(r"\?\S*", "?***", lines[0])[:200]

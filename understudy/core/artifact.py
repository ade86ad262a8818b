"""Artifacts: immutable directories with a manifest written last, and the store that holds them.

A directory without a valid `artifact.json` does not exist. `content_digest` covers the content files only;
`measured.json` and the files a stage declares as measured (times, ids, pictures of them) stay outside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from understudy.core.lease import hold
from understudy.core.records import Ledger, canonical, digest, sha256_file, sync_path
from understudy.errors import IntegrityError

SCHEMA = 1
MANIFEST = "artifact.json"
MEASURED = "measured.json"
_VERIFY_BYTES = 64 << 20  # sha256 on every reuse up to this size; larger files are checked by size


class Artifact:
    """A handle on one artifact directory. Stages return one for their `out`; the store commits it.

    `ledger` counts the rows, `facts` are small deterministic values (read by `skip_if`, gate and report),
    `measured` holds times and ids outside the content, `measured_files` names files that are not content.
    """

    kind: ClassVar[str] = "Artifact"

    def __init__(
        self,
        path: Path,
        *,
        ledger: Ledger | None = None,
        facts: dict[str, Any] | None = None,
        measured: dict[str, Any] | None = None,
        measured_files: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.ledger = ledger
        self.facts = facts or {}
        self.measured = measured or {}
        self.measured_files = tuple(measured_files)
        self.manifest: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return str(self.manifest.get("name", self.path.name))

    @property
    def content_digest(self) -> str:
        return str(self.manifest["content_digest"])


class Corpus(Artifact):
    kind = "Corpus"


class Dataset(Artifact):
    kind = "Dataset"


class HeldSet(Artifact):
    kind = "HeldSet"


class Guard(Artifact):
    """Hashes of the dev and held pairs' n-grams: what synthesis may know of them."""

    kind = "Guard"


class Packed(Artifact):
    kind = "Packed"


class Base(Artifact):
    kind = "Base"


class Checkpoint(Artifact):
    kind = "Checkpoint"


class Answers(Artifact):
    kind = "Answers"


class Scores(Artifact):
    kind = "Scores"


class BiasReport(Artifact):
    kind = "BiasReport"


class Canary(Artifact):
    """What teacher and judge said of a fixed probe set in one round."""

    kind = "Canary"


class Verdict(Artifact):
    kind = "Verdict"


class Release(Artifact):
    kind = "Release"


class Report(Artifact):
    kind = "Report"


KINDS: dict[str, type[Artifact]] = {
    c.kind: c
    for c in (
        Corpus,
        Dataset,
        HeldSet,
        Guard,
        Packed,
        Base,
        Checkpoint,
        Answers,
        Scores,
        BiasReport,
        Canary,
        Verdict,
        Release,
        Report,
    )
}


def write_synced(path: Path, text: str) -> None:
    """Write a small file so that a crash leaves either the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(staged, "w", encoding="utf-8", newline="\n") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(staged, path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_path(path.parent)


class Store:
    """Where artifacts live: `<root>/<step name>/<fingerprint>/`. The store, not the plan, chooses addresses.

    A store `by_name` holds one artifact a step at `<root>/<step name>/`, the last one, for targets that version it
    themselves.
    """

    def __init__(self, root: Path, *, by_name: bool = False) -> None:
        self.root, self.by_name = root, by_name

    def address(self, name: str, fingerprint: str) -> Path:
        return self.root / name if self.by_name else self.root / name / fingerprint[:16]

    def find(self, name: str, fingerprint: str) -> Artifact | None:
        """The committed artifact, verified against its manifest; None when there is none.

        Raises IntegrityError when a file was changed after the commit.
        """
        path = self.address(name, fingerprint)
        if not (path / MANIFEST).is_file():
            return None
        if self.by_name and read_sealed(path / MANIFEST).get("fingerprint") != fingerprint:
            return None
        return self.open(path)

    def open(self, path: Path) -> Artifact:
        """Open a committed directory; an alias opens the artifact it stands for."""
        manifest = read_sealed(path / MANIFEST)
        if manifest.get("schema") != SCHEMA:
            raise IntegrityError(
                "ARTIFACT_VERSION", path, f"schema {manifest.get('schema')}, this release reads {SCHEMA}", "upgrade"
            )
        target = path
        if alias := manifest.get("alias_of"):
            target = self.root / alias
            if not (target / MANIFEST).is_file():
                raise IntegrityError("ARTIFACT_GONE", path, f"stands for {alias}, which is gone", "understudy run")
        _verify(target, manifest["files"])
        ledger = Ledger(**manifest["rows"]) if manifest.get("rows") else None
        artifact = KINDS[manifest["kind"]](target, ledger=ledger, facts=manifest["facts"])
        artifact.manifest = manifest
        measured = target / MEASURED
        artifact.measured = read_sealed(measured) if measured.is_file() else {}
        return artifact

    def scratch(self, name: str, fingerprint: str) -> Path:
        """Where a step keeps partial work from one attempt to the next."""
        return self.root / ".scratch" / f"{name}-{fingerprint[:16]}"

    def scratches(self) -> list[Path]:
        return sorted((self.root / ".scratch").glob("*"))

    def stage_directory(self, name: str, fingerprint: str) -> Path:
        """A fresh private directory on the store's own file system, so that the commit is one rename."""
        path = self.root / ".tmp" / f"{name}-{fingerprint[:16]}-{os.getpid()}"
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        return path

    def commit(self, artifact: Artifact, staged: Path, header: dict[str, Any]) -> Artifact:
        """Seal `staged` with a manifest and move it to its address. `header` holds name, stage, fingerprint, inputs.

        Raises IntegrityError when the ledger does not balance.
        """
        if artifact.ledger and not artifact.ledger.balanced:
            raise IntegrityError(
                "LEDGER",
                header["name"],
                f"{artifact.ledger.rows_in} rows in, {artifact.ledger.rows_out} out, {artifact.ledger.rejected}",
                "this is a bug in the stage: no row may vanish",
            )
        if artifact.measured:
            own = staged / MEASURED  # the stage's work may have measured something itself
            measured = {**(json.loads(own.read_text("utf-8")) if own.is_file() else {}), **artifact.measured}
            own.write_text(json.dumps(measured, indent=1, sort_keys=True), "utf-8")
        outside = {MEASURED, *artifact.measured_files}
        files = {str(p.relative_to(staged)): _sealed(p) for p in sorted(staged.rglob("*")) if p.is_file()}
        content = {name: entry["sha256"] for name, entry in files.items() if name not in outside}
        manifest = {
            "schema": SCHEMA,
            "kind": artifact.kind,
            **header,
            "rows": _rows(artifact.ledger),
            "facts": artifact.facts,
            "files": {name: entry for name, entry in files.items() if name in content},
            "measured_files": sorted(set(files) & outside),
            "content_digest": digest({"kind": artifact.kind, "files": content, "facts": artifact.facts}),
        }
        return self._place(staged, manifest)

    def commit_alias(self, target: Artifact, staged: Path, header: dict[str, Any]) -> Artifact:
        """Commit a skipped step as a stand-in for the artifact `target`."""
        own = {key: target.manifest[key] for key in ("kind", "rows", "facts", "files", "content_digest")}
        relative = target.path.relative_to(self.root)
        return self._place(staged, {"schema": SCHEMA, **header, **own, "alias_of": str(relative)})

    def _place(self, staged: Path, manifest: dict[str, Any]) -> Artifact:
        write_synced(staged / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False))
        final = self.address(manifest["name"], manifest["fingerprint"])
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and not (final / MANIFEST).is_file():
            shutil.rmtree(final)
        if final.exists() and self.by_name and read_sealed(final / MANIFEST)["fingerprint"] != manifest["fingerprint"]:
            old = self.stage_directory(manifest["name"], "replaced")
            os.rename(final, old)
            shutil.rmtree(old)
        if final.exists():  # another process committed the same fingerprint first: its copy stands
            shutil.rmtree(staged)
        else:
            os.rename(staged, final)
            sync_path(final.parent)
        return self.open(final)

    @contextmanager
    def lease(self, name: str, fingerprint: str) -> Iterator[None]:
        with hold(self.root / ".leases" / f"{name}-{fingerprint[:16]}", what=f"step {name}"):
            yield

    def all(self) -> Iterator[Path]:
        """Every committed directory; what is still staged in a dot folder is none."""
        for manifest in sorted(self.root.glob(f"[!.]*/{MANIFEST}" if self.by_name else f"[!.]*/*/{MANIFEST}")):
            yield manifest.parent

    def sweep(self) -> None:
        """Remove staging directories whose process is gone."""
        for path in (self.root / ".tmp").glob("*"):
            pid = path.name.rsplit("-", 1)[-1]
            if not (pid.isdigit() and _alive(int(pid))):
                shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sealed(path: Path) -> dict[str, Any]:
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        return {"sha256": hashlib.file_digest(f, "sha256").hexdigest(), "bytes": path.stat().st_size}


def read_sealed(file: Path) -> dict[str, Any]:
    """A JSON file that the commit wrote. Raises IntegrityError when it was damaged since."""
    try:
        value: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except ValueError:
        raise _changed(file.parent, file, "is damaged") from None
    return value


def _verify(path: Path, files: dict[str, dict[str, Any]]) -> None:
    for name, entry in files.items():
        file = path / name
        size = file.stat().st_size if file.is_file() else -1
        if size != entry["bytes"] or (size <= _VERIFY_BYTES and sha256_file(file) != entry["sha256"]):
            raise _changed(path, file, "differs from its manifest" if size >= 0 else "is gone")


def _changed(path: Path, file: Path, what: str) -> IntegrityError:
    fix = f"remove {path.parent.name}/{path.name} from the store and run again"
    return IntegrityError("ARTIFACT_CHANGED", file, what, fix)


def _rows(ledger: Ledger | None) -> dict[str, Any] | None:
    if ledger is None:
        return None
    rows = {"rows_in": ledger.rows_in, "rows_out": ledger.rows_out}
    parsed: dict[str, Any] = json.loads(canonical({**rows, "rejected": ledger.rejected, "notes": ledger.notes}))
    return parsed

"""Versions of a model and the aliases `champion` and `candidate`: MLflow is the truth, a small file the fast path.

`aliases.json` beside the database repeats what MLflow holds, so that `champion()` costs no import of MLflow (over 1 s);
it is written after MLflow, and `sync()` rebuilds it. Changes are compare-and-set under one file lock.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from understudy.errors import BusyError, ConfigError, GateError, IntegrityError, RemoteError, boundary, extra

LOCK_TIMEOUT_S = 60.0
POINTED = "pointed"
"""Tag of a version: `no` until its aliases are set, so that the next `register` makes good a kill in between."""


@dataclass(frozen=True, slots=True)
class Version:
    """A registered release. `path` is relative to the project; `aliases` are those that point at it now."""

    version: int
    digest: str
    path: str
    aliases: tuple[str, ...] = ()


class Registry:
    """The versions of `name` in one project. MLFLOW_TRACKING_URI replaces the SQLite file in the project."""

    def __init__(self, project: Path, name: str) -> None:
        self.project, self.name = project, name
        self.folder = project / "registry"
        self._cache = self.folder / "aliases.json"

    def register(
        self, release_dir: Path, release_digest: str, *, tags: dict[str, str], metrics: dict[str, float]
    ) -> int:
        """Register a release and make it champion; the same digest gives its version again and changes nothing.

        `tags` and `metrics` go to an MLflow run of their own. Raises GateError for a negative control (tag `control`).
        """
        if tags.get("control"):
            raise GateError("CONTROL", self.name, f"negative control {tags['control']!r} may not be registered")
        path = self._relative(release_dir)
        with self._locked():
            client = self.client()
            known = {v.digest: v.version for v in self._read(client)}
            with boundary(RemoteError, "REGISTRY", self.name, "see the registry's database or server"):
                version = known.get(release_digest) or self._create(client, path, release_digest, tags, metrics)
                if client.get_model_version(self.name, str(version)).tags.get(POINTED) == "no":
                    self._point(client, version)
            self._write(client)
            return version

    def champion(self) -> Version | None:
        """The version that is served and that a candidate must beat; None before the first."""
        return next((v for v in self.versions() if "champion" in v.aliases), None)

    def versions(self) -> list[Version]:
        """Every version, oldest first. Read from the fast file when there is one, else from MLflow."""
        if self._cache.is_file():
            stored = json.loads(self._cache.read_text(encoding="utf-8"))
            rows = stored["models"].get(self.name, {"versions": []})["versions"]
            return [Version(r["version"], r["digest"], r["path"], tuple(r["aliases"])) for r in rows]
        if not self._exists():
            return []
        with self._locked():
            return self._write(self.client())

    def promote(self, version: int, *, expected: int | None = None) -> Version:
        """Make `version` champion. With `expected`, only while that version still is (else BusyError)."""
        with self._locked():
            client = self.client()
            found = {v.version: v for v in self._read(client)}
            if version not in found:
                listed = ", ".join(map(str, found)) or "none"
                raise ConfigError("VERSION", f"{self.name} v{version}", f"is not registered; versions: {listed}")
            now = next((v.version for v in found.values() if "champion" in v.aliases), None)
            if expected is not None and now != expected:
                raise BusyError("CHAMPION_MOVED", self.name, f"champion is v{now}, not v{expected}", "look again")
            if now != version:
                self._promote(client, version, now)
            return next(v for v in self._write(client) if v.version == version)

    def rollback(self) -> Version:
        """Make the version that was champion before this one champion again."""
        with self._locked():
            client = self.client()
            found = {v.version: v for v in self._read(client)}
            now = next((v.version for v in found.values() if "champion" in v.aliases), None)
            before = int(client.get_model_version(self.name, str(now)).tags.get("previous") or 0) if now else 0
            if before not in found:
                raise ConfigError("ROLLBACK", self.name, "has no earlier champion", "`promote` a version by number")
            client.set_model_version_tag(self.name, str(now), POINTED, "yes")
            client.set_registered_model_alias(self.name, "champion", str(before))
            return next(v for v in self._write(client) if v.version == before)

    def sync(self) -> list[Version]:
        """Rebuild the fast file from MLflow."""
        with self._locked():
            return self._write(self.client())

    def _relative(self, release_dir: Path) -> str:
        root = self.project.resolve()
        if not release_dir.resolve().is_relative_to(root):
            raise IntegrityError("RELEASE_OUTSIDE", release_dir.name, "lies outside the project")
        if not (release_dir / "release.json").is_file():
            raise IntegrityError("RELEASE_MISSING", release_dir.name, "holds no release.json")
        return release_dir.resolve().relative_to(root).as_posix()

    def _exists(self) -> bool:
        return bool(os.environ.get("MLFLOW_TRACKING_URI")) or (self.folder / "mlflow.db").is_file()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "registry.lock", timeout=LOCK_TIMEOUT_S):
                yield
        except Timeout as e:
            raise BusyError("REGISTRY_BUSY", self.name, "another process changes the registry", "try again") from e

    def client(self) -> Any:
        """MLflow's client, with the registered model of this name there."""
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder.resolve() / 'mlflow.db'}"
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
        with extra("local"):
            from mlflow import MlflowClient
        for name in ("mlflow", "alembic"):  # importing MLflow sets its own levels
            logging.getLogger(name).setLevel(logging.ERROR)
        with boundary(RemoteError, "REGISTRY", "mlflow", "see the registry's database or server"):
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            if not client.search_registered_models(f"name = '{self.name}'"):
                client.create_registered_model(self.name)
        return client

    def experiment(self, client: Any) -> str:
        """Id of the experiment of this name; a local one keeps its files in the project."""
        found = client.get_experiment_by_name(self.name)
        if found:
            return str(found.experiment_id)
        local = not os.environ.get("MLFLOW_TRACKING_URI")
        place = (self.folder.resolve() / "artifacts").as_uri() if local else None
        return str(client.create_experiment(self.name, artifact_location=place))

    def _create(self, client: Any, path: str, digest: str, tags: dict[str, str], metrics: dict[str, float]) -> int:
        run = client.create_run(self.experiment(client), run_name=f"release {digest[:12]}", tags=dict(tags))
        client.log_param(run.info.run_id, "release_digest", digest)
        client.log_param(run.info.run_id, "release_path", path)
        for key, value in sorted(metrics.items()):
            client.log_metric(run.info.run_id, key, value)
        client.set_terminated(run.info.run_id)
        marks = {**tags, "digest": digest, "path": path, POINTED: "no"}
        created = client.create_model_version(self.name, source=path, run_id=run.info.run_id, tags=marks)
        return int(created.version)

    def _point(self, client: Any, version: int) -> None:
        """A new version is candidate and champion; what was champion before it is remembered on it."""
        now = client.get_registered_model(self.name).aliases.get("champion")
        before = int(now) if now else None
        client.set_registered_model_alias(self.name, "candidate", str(version))
        if before != version:
            self._promote(client, version, before)
        client.set_model_version_tag(self.name, str(version), POINTED, "yes")

    def _promote(self, client: Any, version: int, now: int | None) -> None:
        if now is not None:
            client.set_model_version_tag(self.name, str(version), "previous", str(now))
            client.set_model_version_tag(self.name, str(now), POINTED, "yes")
        client.set_registered_model_alias(self.name, "champion", str(version))

    def _read(self, client: Any) -> list[Version]:
        aliases: dict[str, str] = client.get_registered_model(self.name).aliases
        found = []
        for row in client.search_model_versions(f"name = '{self.name}'", max_results=10_000):
            names = tuple(sorted(a for a, v in aliases.items() if str(v) == str(row.version)))
            if "digest" in row.tags:
                found.append(Version(int(row.version), row.tags["digest"], row.tags["path"], names))
        return sorted(found, key=lambda v: v.version)

    def _write(self, client: Any) -> list[Version]:
        """Repeat what MLflow holds for this name in the fast file; other names in it are kept."""
        versions = self._read(client)
        stored = json.loads(self._cache.read_text(encoding="utf-8")) if self._cache.is_file() else {"models": {}}
        stored["models"][self.name] = {"versions": [asdict(v) for v in versions]}
        text = json.dumps(stored, indent=1, sort_keys=True) + "\n"
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".aliases")
        with open(handle, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, self._cache)
        return versions

"""The registry keeps every release, one champion, and a fast file that says what MLflow says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from understudy.errors import BusyError, ConfigError, GateError, IntegrityError
from understudy.registry import Registry


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database: its migrations cost seconds, so they run once."""
    project = tmp_path_factory.mktemp("template")
    Registry(project, "template").sync()
    return project / "registry" / "mlflow.db"


@pytest.fixture
def registry(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "mlflow.db").write_bytes(migrated.read_bytes())
    return Registry(tmp_path, "advisor")


def release(registry: Registry, digest: str, **tags: str) -> int:
    folder = registry.project / "artifacts" / digest
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "release.json").write_text("{}")
    return registry.register(folder, digest, tags={"run": "r1", **tags}, metrics={"coverage": 0.7})


def champion(registry: Registry) -> int | None:
    found = registry.champion()
    return found.version if found else None


@pytest.mark.slow
def test_a_release_becomes_champion_once_and_the_older_one_comes_back(registry: Registry) -> None:
    assert registry.champion() is None
    assert release(registry, "aaa") == 1
    assert release(registry, "bbb") == 2
    assert release(registry, "aaa") == 1, "the same digest is the same version"
    assert champion(registry) == 2, "registering again changes nothing"
    assert [v.digest for v in registry.versions()] == ["aaa", "bbb"]
    assert registry.versions()[1].path == "artifacts/bbb"
    assert registry.versions()[1].aliases == ("candidate", "champion")

    assert registry.rollback().version == 1
    assert champion(registry) == 1
    with pytest.raises(ConfigError, match="no earlier champion"):
        registry.rollback()
    with pytest.raises(BusyError, match="champion is v1, not v2"):
        registry.promote(2, expected=2)
    assert registry.promote(2, expected=1).version == 2
    with pytest.raises(ConfigError, match="versions: 1, 2"):
        registry.promote(9)


class Killed(BaseException): ...


def killed_at(registry: Registry, monkeypatch: pytest.MonkeyPatch, call: str, name: str) -> None:
    """Register `bbb` as version 2 and die where `call` would set its alias or tag `name`."""
    from mlflow import MlflowClient

    real = getattr(MlflowClient, call)

    def deadly(*args: str) -> None:
        if {"2", name} <= set(args[2:4]):
            raise Killed
        real(*args)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(MlflowClient, call, deadly)
        release(registry, "bbb")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("set_registered_model_alias", "candidate"),
        ("set_registered_model_alias", "champion"),
        ("set_model_version_tag", "pointed"),
    ],
)
def test_a_killed_registration_is_carried_on_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    release(registry, "aaa")
    killed_at(registry, monkeypatch, call, name)
    assert release(registry, "bbb") == 2
    assert [v.aliases for v in registry.versions()] == [(), ("candidate", "champion")]
    assert registry.rollback().version == 1
    assert release(registry, "bbb") == 2
    assert champion(registry) == 1, "what was rolled back stays so"


def test_a_version_rolled_back_before_its_registration_is_carried_on_stays_so(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(registry, "aaa")
    killed_at(registry, monkeypatch, "set_model_version_tag", "pointed")
    assert registry.rollback().version == 1
    release(registry, "bbb")
    assert champion(registry) == 1


def test_the_fast_file_repeats_mlflow_and_can_be_rebuilt(registry: Registry) -> None:
    release(registry, "aaa")
    fast = registry.folder / "aliases.json"
    before = fast.read_text()
    assert registry.project.name not in before, "no path of this machine"
    fast.unlink()
    assert champion(registry) == 1, "without the file MLflow answers"
    assert fast.read_text() == before
    fast.write_text(json.dumps({"models": {}}))
    registry.sync()
    assert fast.read_text() == before


def test_champion_is_read_without_importing_mlflow(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    row = {"version": 3, "digest": "ccc", "path": "artifacts/ccc", "aliases": ["champion"]}
    (tmp_path / "registry" / "aliases.json").write_text(json.dumps({"models": {"advisor": {"versions": [row]}}}))
    code = (
        "import sys; from pathlib import Path; from understudy.registry import Registry;"
        f"print(Registry(Path({str(tmp_path)!r}), 'advisor').champion().version, 'mlflow' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "3 False\n"


def test_a_negative_control_is_never_registered(registry: Registry) -> None:
    with pytest.raises(GateError, match="may not be registered"):
        release(registry, "ddd", control="wrong answers 1.0")
    assert registry.versions() == []


def test_only_a_release_of_this_project_is_registered(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="outside the project"):
        registry.register(tmp_path.parent, "eee", tags={}, metrics={})
    with pytest.raises(IntegrityError, match=r"no release\.json"):
        registry.register(tmp_path, "eee", tags={}, metrics={})

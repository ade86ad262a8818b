"""`dvc repro` on the exported file gives the contents of `understudy run`; they travel through an S3 remote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_chat_pack import tiny_model
from thread import make_tiny, understudy

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
EXTRA = """
base: {path: base/model}
split: {test: 0.5}
train: {max_steps: 2}
answer: {max_new_tokens: 6}
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A server that speaks S3, with the bucket `artifacts`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    url = f"http://127.0.0.1:{port}"
    boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    ).create_bucket(Bucket="artifacts")
    yield url
    server.stop()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that `understudy run` has finished, with dvc.yaml beside it."""
    folder = make_tiny(tmp_path_factory.mktemp("dvc") / "task")
    tiny_model(folder / "base" / "model", tied=True, seed=1)
    config = folder / "understudy.yaml"
    config.write_text(config.read_text() + EXTRA)
    done = understudy("run", "-C", str(folder), "--quiet")
    assert done.returncode == 0, done.stderr
    assert understudy("export", "dvc", "-C", str(folder)).returncode == 0
    return folder


def call(folder: Path, *command: str) -> str:
    """A command in the project, with `understudy` and `dvc` of this Python on the path."""
    scripts = folder / ".scripts"
    scripts.mkdir(exist_ok=True)
    for name in ("understudy", "dvc"):
        (scripts / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name} "$@"\n')
        (scripts / name).chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def contents(folder: Path, pattern: str) -> dict[str, str]:
    manifests = [json.loads(p.read_text("utf-8")) for p in folder.glob(pattern)]
    return {m["name"]: m["content_digest"] for m in manifests}


def fresh(project: Path, folder: Path) -> Path:
    """The project as somebody else gets it: without store, runs and registry."""
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("store", "runs", "registry", "cache", ".scripts"))
    return folder


@pytest.mark.parametrize("git", [False, True], ids=["without git", "with git"])
def test_repro_gives_equal_contents_that_travel(project: Path, tmp_path: Path, s3: str, git: bool) -> None:
    here = fresh(project, tmp_path / "here")
    if git:
        call(here, "git", "init", "--quiet")
    call(here, "dvc", "init", "--quiet", *([] if git else ["--no-scm"]))
    call(here, "dvc", "repro", "--quiet")
    embedded, under_dvc = contents(project / "store", "*/*/artifact.json"), contents(here / "work", "*/artifact.json")
    assert len(under_dvc) > 12 and under_dvc == embedded

    call(here, "dvc", "remote", "add", "--default", "s3", f"s3://artifacts/{'git' if git else 'plain'}")
    call(here, "dvc", "remote", "modify", "s3", "endpointurl", s3)
    call(here, "dvc", "push", "--quiet")
    there = tmp_path / "there"
    if git:
        call(here, "git", "add", "dvc.yaml", "dvc.lock", "understudy.yaml", "data", "base", ".dvc", ".dvcignore")
        call(here, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "run")
        subprocess.run(["git", "clone", "--quiet", str(here), str(there)], check=True)
    else:
        shutil.copytree(here, there, ignore=shutil.ignore_patterns("work", "plan", "cache", ".scripts"))
        shutil.rmtree(there / ".dvc" / "cache", ignore_errors=True)
    call(there, "dvc", "pull", "--quiet", "--allow-missing")
    assert contents(there / "work", "*/artifact.json") == embedded
    said = call(there, "dvc", "repro")
    assert "understudy step" not in said and contents(there / "work", "*/artifact.json") == embedded


def test_a_changed_setting_reruns_what_it_moves_and_nothing_else(project: Path, tmp_path: Path) -> None:
    folder = fresh(project, tmp_path / "here")
    call(folder, "dvc", "init", "--quiet", "--no-scm")
    call(folder, "dvc", "repro", "--quiet")
    config = folder / "understudy.yaml"
    config.write_text(config.read_text().replace("must_beat: []", "must_beat: [base]"))
    said = call(folder, "dvc", "repro")
    ran = [line.split("step ")[1].split()[0] for line in said.splitlines() if line.startswith("> understudy step ")]
    assert ran == ["gate", "register", "report"]
    with open(folder / "data" / "rows.jsonl", "a") as f:
        f.write('{"q": "What is one plus one?", "a": "2"}\n')
    said = call(folder, "dvc", "repro")
    assert "> understudy step collect" in said and "> understudy step base" not in said

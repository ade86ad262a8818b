"""Source digests of stages: what `stages.lock` holds, so that changed code without a new revision is seen.

A stage's digest covers the syntax trees, without comments and docstrings, of its own function and of every work
module of this package that it can reach by imports.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from pathlib import Path

from understudy.core.stage import STAGES, Stage

PACKAGE = Path(__file__).resolve().parents[1]
LOCK = PACKAGE / "stages.lock"
WORK = ("data", "models", "train", "evals", "registry")


def digests() -> dict[str, dict[str, object]]:
    """Name -> {revision, source} of every declared stage."""
    return {name: {"revision": s.revision, "source": _digest(s)} for name, s in sorted(_own().items())}


def stale() -> list[str]:
    """Stages whose source moved since the lock was written, with what to do; empty when all agree."""
    locked = json.loads(LOCK.read_text("utf-8")) if LOCK.is_file() else {}
    lines = []
    for name, entry in digests().items():
        if name not in locked:
            lines.append(f"{name}: not in stages.lock; make lock-stages")
        elif entry["source"] != locked[name]["source"] and entry["revision"] == locked[name]["revision"]:
            lines.append(f"{name}: code moved; bump its revision if its output changed, then make lock-stages")
        elif entry != locked[name]:
            lines.append(f"{name}: revision moved; make lock-stages")
    return lines + [f"{name}: no longer declared; make lock-stages" for name in locked.keys() - _own().keys()]


def _own() -> dict[str, Stage]:
    """The package's stages; a plugin's or a test's own are not locked here."""
    return {name: s for name, s in STAGES.items() if s.function.__module__.startswith("understudy.")}


def write_lock() -> None:
    LOCK.write_text(json.dumps(digests(), indent=1) + "\n", "utf-8")


def _digest(stage: Stage) -> str:
    own = ast.parse(textwrap.dedent(inspect.getsource(stage.function)))
    reached: set[Path] = set()
    frontier = _imports(own)
    while frontier:
        path = frontier.pop()
        if path not in reached:
            reached.add(path)
            frontier |= _imports(ast.parse(path.read_text("utf-8"))) - reached
    parts = [ast.dump(_bare(own))]
    for path in sorted(reached):
        parts += [path.relative_to(PACKAGE).as_posix(), ast.dump(_bare(ast.parse(path.read_text("utf-8"))))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _imports(tree: ast.AST) -> set[Path]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == "understudy" and len(parts) > 1 and parts[1] in WORK:
            for path in (PACKAGE.joinpath(*parts[1:]).with_suffix(".py"), PACKAGE.joinpath(*parts[1:]) / "__init__.py"):
                if path.is_file():
                    found.add(path)
    return found


def _bare(tree: ast.AST) -> ast.AST:
    """The tree without docstrings; comments are not in a tree anyway."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    return tree

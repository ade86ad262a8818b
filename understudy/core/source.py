"""Source digests of stages: what `stages.lock` holds, so that changed code without a new revision is seen.

A stage's digest covers the syntax trees, without comments and docstrings, of its own function, of what it uses of its
own module, and of every work module of this package that these can reach by imports; and the text files (prompts,
templates) that those modules name.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from functools import cache
from pathlib import Path

from understudy.core.stage import STAGES, Stage

PACKAGE = Path(__file__).resolve().parents[1]
LENDER = "bodies"
"""The module whose functions the bodies of stages share."""
LOCK = PACKAGE / "stages.lock"
WORK = ("data", "models", "train", "evals", "registry")
TEXTS = (".txt", ".j2", ".html", ".css")


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
    own, files = closure(stage)
    # An import counts by what it reaches: a name more in its list moves no stage.
    parts = [ast.dump(_bare(tree)) for tree in own if not isinstance(tree, ast.Import | ast.ImportFrom)]
    for path in sorted(files):
        parts += [path.relative_to(PACKAGE).as_posix(), _content(path)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def closure(stage: Stage) -> tuple[list[ast.AST], set[Path]]:
    """What a stage uses: its function with what that uses of the same module, and the files that these reach."""
    module = inspect.getmodule(stage.function)
    assert module is not None
    function = ast.parse(textwrap.dedent(inspect.getsource(stage.function)))
    own = [function, *_used(function, _with_lent(ast.parse(inspect.getsource(module))))]
    files: set[Path] = set()
    frontier = set().union(*map(_imports, own))
    while frontier:
        path = frontier.pop()
        if path not in files:
            files |= {path} | _texts(path)
            frontier |= _imported(path) - files
    return own, files


def _with_lent(module: ast.Module) -> ast.Module:
    """The module with what LENDER defines in place of the import: followed name by name, not as a whole file."""
    lent = ast.parse((PACKAGE / LENDER).with_suffix(".py").read_text("utf-8")).body
    name = f"understudy.{LENDER}"
    own = [n for n in module.body if not (isinstance(n, ast.ImportFrom) and n.module == name)]
    return ast.Module([*lent, *own], []) if len(own) < len(module.body) else module


@cache
def _content(path: Path) -> str:
    text = path.read_text("utf-8")
    return ast.dump(_bare(ast.parse(text))) if path.suffix == ".py" else text


@cache
def _imported(path: Path) -> set[Path]:
    return _imports(ast.parse(path.read_text("utf-8")))


@cache
def _texts(path: Path) -> set[Path]:
    """Text files beside a module that it names, or whose folder it names."""
    tree = ast.parse(path.read_text("utf-8"))
    named = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    texts = [text for text in path.parent.rglob("*") if text.suffix in TEXTS and text.is_file()]
    return {text for text in texts if named & set(text.relative_to(path.parent).parts)}


def _used(function: ast.AST, module: ast.Module) -> list[ast.AST]:
    """The module's own functions, constants and imports that `function` uses, by name, and what those use in turn."""
    defined: dict[str, ast.stmt] = {}
    for node in module.body:
        defined |= dict.fromkeys(_defines(node), node)
    found: dict[str, ast.AST] = {}
    frontier = _names(function)
    while frontier:
        name = frontier.pop()
        if name in defined and name not in found:
            found[name] = defined[name]
            frontier |= _names(defined[name])
    return [found[name] for name in sorted(found)]


def _defines(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.split(".")[0] for alias in node.names}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _names(tree: ast.AST) -> set[str]:
    """Names that `tree` reads and does not bind itself: a parameter may be called like a stage."""
    nodes = list(ast.walk(tree))
    names = [n for n in nodes if isinstance(n, ast.Name)]
    bound = {n.id for n in names if isinstance(n.ctx, ast.Store)} | {n.arg for n in nodes if isinstance(n, ast.arg)}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= _defines(node)
    return {n.id for n in names} - bound


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

"""`@stage`: a plain function whose signature is the truth, and the inert Step that declares one call of it.

First parameter: the config (identity, but for its execution settings). Artifact-typed parameters: edges, checked when
the step is declared. `out`: where to write. `needs` is about execution and never identity. `.step(...)` runs nothing.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from understudy.core.artifact import KINDS, Artifact
from understudy.core.records import digest
from understudy.errors import ConfigError


@dataclass(frozen=True)
class Needs:
    """What a step needs to run; a target turns it into its own resource words."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)  # read from a plan file

    gpu: Literal["no", "optional", "required"] = "no"
    memory_gb: float = 2.0
    timeout_s: float = 24 * 3600.0
    retries: int = 0


@dataclass(frozen=True)
class Edge:
    kinds: tuple[str, ...]
    many: bool
    optional: bool


@dataclass(frozen=True)
class SkipIf:
    """Skip the step when `facts[field]` of the artifact `of` equals `equals`; its output is then `alias`'s."""

    of: Step
    field: str
    equals: Any
    alias: Step


@dataclass(frozen=True, eq=False)
class Step:
    """One declared call. `address` is set for an adopted artifact, which is opened, never run."""

    name: str
    stage: str
    revision: int
    config: dict[str, Any]
    inputs: dict[str, Step | list[Step] | None]
    kind: str
    needs: Needs
    fingerprint: str
    skip_if: SkipIf | None = None
    address: str | None = None
    libraries: dict[str, str] = field(default_factory=dict)

    def parents(self) -> list[Step]:
        found: list[Step] = []
        for value in self.inputs.values():
            found += value if isinstance(value, list) else [value] if value else []
        return found + ([self.skip_if.of, self.skip_if.alias] if self.skip_if else [])


STAGES: dict[str, Stage] = {}
"""Every declared stage by name; `understudy.stages` fills it."""


class Stage:
    """A declared stage. Calling it runs the function; `.step` only declares a call."""

    def __init__(
        self, function: Callable[..., Artifact], *, revision: int, needs: Needs, libraries: tuple[str, ...]
    ) -> None:
        self.function, self.revision, self.needs, self.libraries = function, revision, needs, libraries
        self.name = function.__name__
        self.config_type, self.edges, self.kind = _read_signature(function)
        self.__doc__ = function.__doc__
        if self.name in STAGES and STAGES[self.name].function.__module__ != function.__module__:
            raise ConfigError("STAGE_TWICE", self.name, "a stage of this name is declared already", "rename it")
        STAGES[self.name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Artifact:
        return self.function(*args, **kwargs)

    def step(self, config: BaseModel, *, name: str | None = None, skip_if: SkipIf | None = None, **inputs: Any) -> Step:
        """Declare one call; raises ConfigError when an edge is missing or of the wrong kind."""
        name = name or self.name
        if not isinstance(config, self.config_type):
            wanted = self.config_type.__name__
            raise ConfigError("EDGE_CONFIG", name, f"config is {type(config).__name__}, {self.name} wants {wanted}")
        if unknown := sorted(set(inputs) - set(self.edges)):
            raise ConfigError(
                "EDGE_UNKNOWN", name, f"{self.name} has no input {unknown[0]}", f"it has {list(self.edges)}"
            )
        for edge_name, edge in self.edges.items():
            _check_edge(f"{name}.{edge_name}", edge, inputs.get(edge_name))
        resolved = {key: inputs.get(key) for key in self.edges}
        settings = config.model_dump(mode="json", by_alias=True)
        libraries = {library: library_version(library) for library in self.libraries}
        return Step(
            name, self.name, self.revision, settings, resolved, self.kind, self.needs,
            self.fingerprint(settings, libraries, resolved, skip_if), skip_if, libraries=libraries,
        )  # fmt: skip

    def fingerprint(
        self,
        settings: dict[str, Any],
        libraries: dict[str, str],
        inputs: dict[str, Step | list[Step] | None],
        skip_if: SkipIf | None,
    ) -> str:
        """Identity of one call: what defines its output, and nothing of where or how it is carried out."""
        identity = {
            "stage": self.name,
            "revision": self.revision,
            "config": without_execution(self.config_type, settings),
            "libraries": libraries,
            "inputs": {key: _fingerprints(value) for key, value in inputs.items()},
        }
        if skip_if:
            identity["skip_if"] = [skip_if.of.fingerprint, skip_if.field, skip_if.equals, skip_if.alias.fingerprint]
        return digest(identity)


def stage(
    *, revision: int, needs: Needs | None = None, libraries: tuple[str, ...] = ()
) -> Callable[[Callable[..., Artifact]], Stage]:
    """Declare a function as a stage. Bump `revision` when the meaning of its output changes.

    `libraries`: packages whose major.minor version defines the result (torch, transformers, tokenizers).
    """

    def wrap(function: Callable[..., Artifact]) -> Stage:
        return Stage(function, revision=revision, needs=needs or Needs(), libraries=libraries)

    return wrap


def adopt(name: str, kind: str, address: str, fingerprint: str) -> Step:
    """An artifact that an earlier run committed (a champion's release), as an input like any other."""
    return Step(name, "adopt", 0, {}, {}, kind, Needs(), fingerprint, address=address)


def without_execution(model: type[BaseModel], settings: dict[str, Any]) -> dict[str, Any]:
    """The JSON form of a `model` without the fields that are marked as execution, in nested models too."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    kept: dict[str, Any] = {}
    for key, value in settings.items():
        field = fields.get(key)
        extra = field.json_schema_extra if field else None
        if isinstance(extra, dict) and extra.get("execution"):
            continue
        inner = _model_of(field.annotation) if field else None
        if inner and isinstance(value, list):
            kept[key] = [without_execution(inner, item) for item in value]
        else:
            kept[key] = without_execution(inner, value) if inner and isinstance(value, dict) else value
    return kept


def _model_of(hint: Any) -> type[BaseModel] | None:
    """The model that a field holds, alone, optional or in a list."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next(filter(None, map(_model_of, typing.get_args(hint))), None)


def library_version(library: str) -> str:
    """major.minor of an installed package, or `absent`."""
    try:
        return ".".join(metadata.version(library).split("+")[0].split(".")[:2])
    except metadata.PackageNotFoundError:
        return "absent"


def _fingerprints(value: Step | list[Step] | None) -> Any:
    if isinstance(value, list):
        return [step.fingerprint for step in value]
    return value.fingerprint if value else None


def _check_edge(where: str, edge: Edge, value: Any) -> None:
    if value is None:
        if not edge.optional:
            raise ConfigError("EDGE_MISSING", where, f"needs {' or '.join(edge.kinds)}")
        return
    given = value if isinstance(value, list) else [value]
    if isinstance(value, list) != edge.many:
        raise ConfigError("EDGE_KIND", where, "wants a list of steps" if edge.many else "wants one step, not a list")
    for step in given:
        if not isinstance(step, Step) or (step.kind not in edge.kinds and Artifact.kind not in edge.kinds):
            kind = step.kind if isinstance(step, Step) else type(step).__name__
            raise ConfigError("EDGE_KIND", where, f"got {kind}, wants {' or '.join(edge.kinds)}")


def _read_signature(function: Callable[..., Artifact]) -> tuple[type[BaseModel], dict[str, Edge], str]:
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters)
    edges = {p: _edge(hints[p]) for p in parameters[1:] if p != "out"}
    returned = hints["return"]
    if returned.kind not in KINDS:
        raise TypeError(f"{function.__name__} returns {returned}, which is no artifact kind")
    return hints[parameters[0]], edges, str(returned.kind)


def _edge(hint: Any) -> Edge:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        options = typing.get_args(hint)
        inner = [_edge(o) for o in options if o is not type(None)]
        kinds = tuple(kind for edge in inner for kind in edge.kinds)
        return Edge(kinds, inner[0].many, optional=type(None) in options)
    if origin is list:
        inner_edge = _edge(typing.get_args(hint)[0])
        return Edge(inner_edge.kinds, many=True, optional=False)
    return Edge((hint.kind,), many=False, optional=False)

"""Serving a release: prove its files, load it, bind, run until SIGTERM."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config import FailoverConfig, ServeConfig, ServiceConfig
from understudy.errors import ConfigError, IntegrityError, ResourceError, extra

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from understudy.models.engine import Engine
    from understudy.serve.api import Understudy
    from understudy.serve.upstream import Upstream
    from understudy.traffic import TrafficLog

DRAIN_S = 30
AT_START = 32
"""Probes whose probabilities are computed before anything is served; at export it is all of them."""
Announce = Callable[[str], None]


def serve(
    release_dir: Path,
    cfg: ServeConfig,
    *,
    served_by: str,
    service: ServiceConfig | None = None,
    traffic: TrafficLog | None = None,
    announce: Announce = print,
) -> None:
    """Serve a release until SIGTERM or SIGINT; port 0 picks a free one and `announce` gets the URL.

    Raises ConfigError for a bind beyond loopback without UNDERSTUDY_API_KEY, IntegrityError when the release's files
    are not those that were registered, ResourceError when the port is taken.
    """
    key = os.environ.get("UNDERSTUDY_API_KEY") or None
    check_bind(cfg.host, key)
    understudy = load(release_dir, served_by=served_by)
    first = service if cfg.policy == "service_first" else None
    with extra("serve"), opened(first, cfg.failover) as upstream, traffic or nullcontext():
        from understudy.serve.api import Limits, create_app

        access, limits = access_for(cfg.host, key), Limits(max_body_bytes=cfg.max_body_bytes)
        app = create_app(understudy, upstream=upstream, traffic=traffic, access=access, limits=limits)
        run_app(app, cfg.host, cfg.port, announce=announce)


@contextmanager
def opened(service: ServiceConfig | None, budget: FailoverConfig) -> Iterator[Upstream | None]:
    """The service to ask first, or None; a simulated one without an address is started here, as real HTTP."""
    from understudy.serve.upstream import Upstream

    if service is None:
        yield None
    elif service.provider == "simulated" and not service.base_url:
        from understudy.models.simulated import SimulatedService

        with SimulatedService() as simulated:
            simulated.keep_requests = False
            yield Upstream(service, budget, simulated.base_url)
    else:
        yield Upstream(service, budget)


def load(release_dir: Path, *, served_by: str) -> Understudy:
    """The model of a proven release; its decoding settings are the defaults of requests."""
    release = verify(release_dir)
    with extra("local"):
        from understudy.models.base import Sampling
        from understudy.serve.api import Understudy

        model = _engine(release_dir, release)
    prove(release_dir, release, model)
    return Understudy(model, served_by, model.context, Sampling(**release["decoding"]))


def _engine(release_dir: Path, release: dict[str, Any]) -> Engine:
    """The engine that the release was scored with."""
    folder, name = release_dir / "model", release.get("engine", {}).get("name", "transformers")
    if name == "openvino":
        from understudy.models.openvino import OpenVinoModel

        return OpenVinoModel(folder, release_dir / "engine" / "model.gguf")
    from understudy.models.local import LocalModel

    return LocalModel(folder)


def prove(release_dir: Path, release: dict[str, Any], model: Engine) -> None:
    """Hold the loaded model against the release's parity certificate. Raises IntegrityError PARITY."""
    from understudy.models import parity

    file = release_dir / parity.FILE
    if not file.is_file():  # of an earlier version of understudy
        return
    certificate = json.loads(file.read_text("utf-8"))
    parity.check_exact(certificate, model.template, model.ends, release["decoding"])
    if isinstance(model, parity.Likely):
        parity.check_numeric(certificate, model, release_dir.name, AT_START)


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def check_bind(host: str, key: str | None) -> None:
    """Refuse to listen beyond this machine without a key."""
    if not is_loopback(host) and not key:
        raise ConfigError(
            "SERVE_KEY", "serve.host", f"{host} is reachable from other machines and no API key is set",
            "set UNDERSTUDY_API_KEY, or bind 127.0.0.1",
        )  # fmt: skip


def access_for(host: str, key: str | None) -> Any:
    """Loopback binds accept loopback names only; a wider bind has a key, and clients know it by names of their own."""
    from understudy.serve.guard import LOOPBACK, Access

    bound = f"[{host}]" if ":" in host else host.lower()
    return Access(LOOPBACK | {bound} if is_loopback(host) else None, key)


def verify(release_dir: Path) -> dict[str, Any]:
    """The release's `release.json`, after proving every file it lists; a difference refuses to serve."""
    path = release_dir / "release.json"
    if not path.is_file():
        fix = "understudy run makes it again"
        raise IntegrityError("RELEASE_MISSING", release_dir.name, "holds no release.json", fix)
    release: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    files: dict[str, str] = release["files"]
    found = {p.relative_to(release_dir).as_posix() for p in (release_dir / "model").rglob("*") if p.is_file()}
    if missing := {name for name in files if name.startswith("model/")} ^ found:
        raise IntegrityError("RELEASE_FILES", sorted(missing)[0], "is not as registered", "run the plan again")
    for name, expected in sorted(files.items()):
        with open(release_dir / name, "rb") as f:
            actual = hashlib.file_digest(f, "sha256").hexdigest()
        if actual != expected:
            what = f"sha256 {actual[:12]} is not the registered {expected[:12]}"
            raise IntegrityError("RELEASE_DIGEST", name, what, "roll back, or run the plan again")
    return release


def run_app(app: ASGIApp, host: str, port: int, *, announce: Announce = print) -> None:
    """Bind first, so that the announced URL accepts connections; then run until a signal and let answers finish."""
    import uvicorn

    sock = listen(host, port)
    bound = sock.getsockname()[1]
    announce(f"http://{f'[{host}]' if ':' in host else host}:{bound}/v1")
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_S,
    )
    uvicorn.Server(config).run(sockets=[sock])


def listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as e:
        raise ResourceError("PORT", f"{host}:{port}", f"cannot listen: {e.strerror}", "pick another port") from e

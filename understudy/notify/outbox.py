"""An outbox of folders: a message is on disk before it is sent, and goes when every recipient has it.

A server that is down delays and loses nothing: the next event, or `understudy notify`, sends what waits, oldest first.
A crash between sending and forgetting sends a message twice, never zero times. Secrets stay references on disk.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.core.lease import hold
from understudy.errors import BusyError, ConfigError, extra
from understudy.notify.messages import Message

REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
PATIENCE_S = 10.0
"""Longest wait for a connection or an answer of one recipient's server."""
MAILS = ("mailto", "mailtos")
URL = re.compile(r"\S*://\S*")


@dataclass(frozen=True)
class Delivery:
    """What one round of sending came to; `why` names recipients that did not take their messages, without secrets."""

    sent: int
    waiting: int
    why: tuple[str, ...] = ()


class Outbox:
    """The messages that wait in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, message: Message, to: Sequence[str]) -> None:
        """Keep a message for recipients: Apprise addresses in which secrets are `${env:NAME}`. Synced, then renamed."""
        name = f"{time.time_ns():020d}-{message.event}"
        staged = self.folder / f".{name}.{os.getpid()}"
        staged.mkdir(parents=True, mode=0o700)
        for file, png in message.pictures.items():
            (staged / file).write_bytes(png)
        about = {"event": message.event, "subject": message.subject, "html": message.html, "to": list(to)}
        with open(staged / "message.json", "w", encoding="utf-8") as f:
            json.dump(about, f, ensure_ascii=False)
            f.flush()
            os.fsync(f.fileno())
        os.rename(staged, self.folder / name)

    def waiting(self) -> list[Path]:
        """Folders of messages, oldest first."""
        return sorted(p.parent for p in self.folder.glob("[0-9]*/message.json"))

    def send(self) -> Delivery:
        """Try every message once; a recipient that failed is not asked again in this round.

        While another process sends, nothing is done: no recipient gets a message twice.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with hold(self.folder / ".lock", what="outbox"):
                return self._send()
        except BusyError as e:
            return Delivery(0, len(self.waiting()), (f"another process is sending, {e.what}",))

    def _send(self) -> Delivery:
        sent, down = 0, dict[str, str]()
        for folder in self.waiting():
            about = json.loads((folder / "message.json").read_text("utf-8"))
            left = [to for to in about["to"] if to in down or not self._deliver(folder, about, to, down)]
            if not left:
                shutil.rmtree(folder)
                sent += 1
            elif left != about["to"]:
                self._keep(folder, {**about, "to": left})
        return Delivery(sent, len(self.waiting()), tuple(down.values()))

    def _deliver(self, folder: Path, about: dict[str, str], to: str, down: dict[str, str]) -> bool:
        with extra("notify"):
            import apprise
        try:
            address = resolve(to)
        except ConfigError as e:
            down[to] = f"{shown(to)}: {e.what}"
            return False
        said = _Said()
        with said:
            target = apprise.Apprise()
            taken = target.add(_patient(address)) and target.notify(
                body=about["html"],
                title=about["subject"],
                body_format=apprise.NotifyFormat.HTML,
                attach=[str(p) for p in sorted(folder.glob("*.png"))] or None,
            )
        if not taken:
            # An address that Apprise cannot read it repeats, with most of what is secret in it.
            down[to] = f"{shown(to)}: {URL.sub('***', said.last) or 'not delivered'}"
        return bool(taken)

    def _keep(self, folder: Path, about: dict[str, object]) -> None:
        staged = folder / ".message.json"
        staged.write_text(json.dumps(about, ensure_ascii=False), "utf-8")
        os.replace(staged, folder / "message.json")


def resolve(address: str) -> str:
    """The address with its variables filled in; raises ConfigError ENV_MISSING that names the variable only."""

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], "")
        if not found:
            what = f"the environment variable {match[1]} is not set"
            raise ConfigError("ENV_MISSING", "notify.to", what, f"export {match[1]}=...")
        return found

    return REFERENCE.sub(value, address)


def shown(address: str) -> str:
    """An address as people may see it: scheme and a mail's host, or the reference that holds it.

    Where other services' addresses have their host, many have a token.
    """
    if not (found := re.match(r"([a-z0-9+.-]+)://", address, re.IGNORECASE)):
        return address if REFERENCE.fullmatch(address) else "a recipient"
    rest = address[found.end() :].split("?")[0].split("/")[0].rsplit("@", 1)[-1]
    if found[1].lower() not in MAILS:
        return f"{found[1]}://***"
    return f"{found[1]}://{rest}"


def _patient(address: str) -> str:
    """With the deadlines of ours, unless the address has its own; pictures of a mail stand in the text."""
    wanted = {"rto": f"{PATIENCE_S:g}", "cto": f"{PATIENCE_S:g}"}
    if address.startswith(MAILS):
        wanted |= {"inline": "yes", "format": "html"}
    query = address.partition("?")[2]
    missing = [f"{key}={value}" for key, value in wanted.items() if not re.search(rf"(^|&){key}=", query)]
    return address + ("&" if query else "?" if "?" not in address else "") + "&".join(missing)


class _Said(logging.Handler):
    """Keeps the last complaint of Apprise, and nothing of what it logs reaches the terminal."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage().splitlines()[0][:200]

    def __enter__(self) -> _Said:
        log = logging.getLogger("apprise")
        self._before = log.propagate
        log.propagate = False
        log.addHandler(self)
        return self

    def __exit__(self, *exc: object) -> None:
        log = logging.getLogger("apprise")
        log.removeHandler(self)
        log.propagate = self._before

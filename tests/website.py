"""A web site on loopback for tests: it keeps a log, and can be as rude as raw sockets allow."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Asked:
    """One request, with the second at which it came."""

    at: float
    path: str
    headers: dict[str, str]


Talk = Callable[[socket.socket, Asked], None]


def reply(
    body: str | bytes = "",
    status: int = 200,
    kind: str = "text/html; charset=utf-8",
    packed: bool = False,
    **headers: str,
) -> bytes:
    """A whole response with its length; `retry_after="3"` is the header Retry-After."""
    data = body.encode() if isinstance(body, str) else body
    if packed:
        data, headers = gzip.compress(data, mtime=0), {**headers, "content_encoding": "gzip"}
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", f"Content-Type: {kind}"]
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + data


@dataclass
class Site:
    """`pages[path]` is a response, a list of them (one a request, the last for ever), or a function that talks."""

    pages: dict[str, bytes | list[bytes] | Talk] = field(default_factory=dict)
    log: list[Asked] = field(default_factory=list)
    port: int = 0
    connections: int = 0
    bytes_in: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def paths(self) -> list[str]:
        """What was asked for, robots.txt aside."""
        return [asked.path for asked in self.log if asked.path != "/robots.txt"]

    def answer(self, connection: socket.socket) -> None:
        self.connections += 1
        with connection:
            connection.settimeout(20)
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    data = connection.recv(65536)
                    if not data:
                        return
                    self.bytes_in += len(data)
                    head += data
                asked = _asked(head)
                self.log.append(asked)
                page = self.pages.get(asked.path, reply("no such page", 404))
                if isinstance(page, list):
                    page = page.pop(0) if len(page) > 1 else page[0]
                if callable(page):
                    page(connection, asked)
                else:
                    connection.sendall(page)
            except OSError:
                return


def _asked(head: bytes) -> Asked:
    first, *lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return Asked(time.monotonic(), first.split(" ")[1], headers)


@contextmanager
def site(pages: dict[str, bytes | list[bytes] | Talk] | None = None, host: str = "127.0.0.1") -> Iterator[Site]:
    """A running site; it ends with the block."""
    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    served = Site(pages if pages is not None else {}, port=listener.getsockname()[1])

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=served.answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)

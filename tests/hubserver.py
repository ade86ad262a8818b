"""A stand-in for the Hugging Face Hub, for the real client: revision, tree, resolve with ETag and LFS redirect."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One data set `org/data` at COMMIT, also as branch `main`; files over 1,000 bytes are LFS files."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    spoilt: bool = False
    """Whether bytes are changed on their way."""
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Authorization of each request."""
    address: str = ""
    store: str = ""
    """Another host, as the real one's object store is."""

    def tree(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = [{"type": "directory", "path": "data", "oid": "0" * 40, "size": 0}]
        for path, data in self.files.items():
            git = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git}
            if len(data) > 1_000:
                digest = hashlib.sha256(data).hexdigest()
                entry |= {"lfs": {"oid": digest, "size": len(data), "pointerSize": 130}}
            entries.append(entry)
        return entries


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def reply(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str) -> None:
        self.reply(status, b"{}", X_Error_Code=code, X_Error_Message=code)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, token = unquote(urlsplit(self.path).path), self.headers.get("Authorization", "")
        self.hub.seen.append((self.command, path, token))
        parts = path.strip("/").split("/")
        if parts[0] == "cdn":
            data = self.hub.files["/".join(parts[1:])]
            self.reply(200, data[:-1] + b"?" if self.hub.spoilt else data)
            return
        repo, verb, revision = ("/".join(parts[2:4]), parts[4], parts[5]) if parts[0] == "api" else (
            "/".join(parts[1:3]), parts[3], parts[4])  # fmt: skip
        if repo != "org/data":
            self.refuse(401 if not token else 404, "RepoNotFound")
        elif revision not in (COMMIT, "main"):
            self.refuse(404, "RevisionNotFound")
        elif verb == "revision":
            self.reply(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": [], "tags": []}).encode())
        elif self.hub.gated and token != "Bearer hf_good":
            self.refuse(401 if not token else 403, "GatedRepo")
        elif verb == "tree":
            self.reply(200, json.dumps(self.hub.tree()).encode(), Content_Type="application/json")
        else:
            self.resolve("/".join(parts[5:]))

    def resolve(self, name: str) -> None:
        entry = next((e for e in self.hub.tree() if e["path"] == name), None)
        if entry is None:
            self.refuse(404, "EntryNotFound")
            return
        data, common = self.hub.files[name], {"X_Repo_Commit": COMMIT}
        if "lfs" in entry:
            linked = {"X_Linked_Size": str(len(data)), "X_Linked_Etag": f'"{entry["lfs"]["oid"]}"'}
            self.reply(302, b"", Location=f"{self.hub.store}/cdn/{name}", **common, **linked)
            return
        body = data[:-1] + b"?" if self.hub.spoilt else data
        self.reply(200, body, ETag=f'"{entry["oid"]}"', Content_Length=str(len(data)), **common)


@contextmanager
def hub_server() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    hub.store = hub.address.replace("127.0.0.1", "localhost")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

"""Pages on disk, packed, by digest of their URL: what a server may call "not modified", and what a day has so far."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from understudy.core.records import digest


@dataclass(frozen=True)
class Page:
    """A whole page: `url` is where it was found in the end; `etag` and `modified` are the server's words."""

    url: str
    content_type: str
    body: bytes
    etag: str = ""
    modified: str = ""

    def validators(self) -> dict[str, str]:
        """Headers that ask for the page only if it changed."""
        pairs = {"If-None-Match": self.etag, "If-Modified-Since": self.modified}
        return {key: value for key, value in pairs.items() if value}


@dataclass(frozen=True)
class PageStore:
    """A folder of pages; a damaged or half-written one is as good as none."""

    folder: Path

    def get(self, url: str) -> Page | None:
        file = self.folder / digest(url, 32)
        try:
            head, _, body = file.read_bytes().partition(b"\n")
            meta = json.loads(head)
            body = zlib.decompress(body)
        except (OSError, ValueError, zlib.error):
            return None
        if meta.pop("asked") != url or meta.pop("sha256") != hashlib.sha256(body).hexdigest():
            return None
        return Page(**meta, body=body)

    def put(self, url: str, page: Page) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        meta = {
            "asked": url,
            "sha256": hashlib.sha256(page.body).hexdigest(),
            "url": page.url,
            "content_type": page.content_type,
            "etag": page.etag,
            "modified": page.modified,
        }
        file = self.folder / digest(url, 32)
        staged = file.with_name(f".{file.name}.{os.getpid()}")
        staged.write_bytes(json.dumps(meta).encode() + b"\n" + zlib.compress(page.body))
        os.replace(staged, file)

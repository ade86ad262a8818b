"""A stand-in for BigQuery over REST, for the real client: dry run, jobs.query, getQueryResults, tables.

It holds tables as the service encodes them and gives back the one that a query names; what it cannot do is run SQL.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Table:
    """Schema fields, rows of cells as the service writes them, and what a scan reads."""

    fields: list[dict[str, Any]]
    rows: list[list[Any]]
    bytes: int = 1_000
    modified: int = 1


@dataclass
class Warehouse:
    """Tables by `data_set.table`, what goes wrong, and the requests that were answered."""

    tables: dict[str, Table] = field(default_factory=dict)
    fault: str = ""
    page: int = 2
    seen: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    address: str = ""

    def billed(self) -> list[dict[str, Any]]:
        return [body for method, path, body in self.seen if method == "POST" and path.endswith("/queries")]


FAULTS = {
    "quota": (403, "quotaExceeded", "Quota exceeded: too many bytes scanned today"),
    "denied": (403, "accessDenied", "Access Denied: user does not have bigquery.jobs.create permission"),
    "unauthorized": (401, "authError", "Invalid Credentials"),
    "syntax": (400, "invalidQuery", "Syntax error: Expected end of input at [1:9]"),
    "billed": (400, "bytesBilledLimitExceeded", "Query exceeded limit for bytes billed: 1000"),
    "down": (503, "backendError", "try again"),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    house: Warehouse

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def reply(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, reason: str, message: str) -> None:
        self.reply(status, {"error": {"code": status, "message": message, "errors": [{"reason": reason}]}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        path = urlsplit(self.path).path
        self.house.seen.append(("POST", path, body))
        dry = path.endswith("/jobs")
        asked = body["configuration"]["query"] if dry else body
        found = re.search(r"(\w+\.\w+)`?(?:\s|$)", asked["query"])
        table = self.house.tables.get(found[1]) if found else None
        fault = self.house.fault
        if fault in FAULTS and not (fault == "billed" and dry):
            self.refuse(*FAULTS[fault])
        elif table is None:
            self.refuse(404, "notFound", f"Not found: Table {found[1] if found else '?'}")
        elif dry:
            assert body["configuration"]["dryRun"] is True, "nothing runs unpriced"
            data_set, name = found[1].split(".") if found else ("", "")
            read = [{"projectId": "p", "datasetId": data_set, "tableId": name}]
            statistics = {"totalBytesProcessed": str(table.bytes), "referencedTables": read}
            self.reply(200, {
                "jobReference": {"projectId": "p", "jobId": "dry", "location": "EU"}, "status": {"state": "DONE"},
                "statistics": {"totalBytesProcessed": str(table.bytes), "query": statistics},
                "configuration": body["configuration"],
            })  # fmt: skip
        else:
            self.rows(found[1] if found else "", table, 0)

    def rows(self, name: str, table: Table, start: int) -> None:
        if self.house.fault == "drop" and start:
            self.close_connection = True
            self.connection.close()
            return
        end = start + self.house.page
        page: dict[str, Any] = {
            "jobComplete": True, "jobReference": {"projectId": "p", "jobId": name, "location": "EU"},
            "schema": {"fields": table.fields}, "totalRows": str(len(table.rows)),
            "rows": [{"f": [{"v": cell} for cell in row]} for row in table.rows[start:end]],
        }  # fmt: skip
        if end < len(table.rows):
            page["pageToken"] = str(end)
        self.reply(200, page)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.house.seen.append(("GET", parts.path, {}))
        steps = parts.path.split("/")
        if "tables" in steps:
            name = f"{steps[-3]}.{steps[-1]}"
            table = self.house.tables[name]
            self.reply(200, {
                "tableReference": {"projectId": "p", "datasetId": steps[-3], "tableId": steps[-1]},
                "etag": f"e{table.modified}", "numRows": str(len(table.rows)), "lastModifiedTime": str(table.modified),
            })  # fmt: skip
            return
        name = steps[-1]
        if steps[-2] == "jobs":
            made = {"projectId": "p", "datasetId": "_anonymous", "tableId": "result"}
            self.reply(200, {
                "jobReference": {"projectId": "p", "jobId": name, "location": "EU"}, "status": {"state": "DONE"},
                "configuration": {"query": {"query": "SELECT", "destinationTable": made}}, "statistics": {"query": {}},
            })  # fmt: skip
            return
        self.rows(name, self.house.tables[name], int(parse_qs(parts.query).get("pageToken", ["0"])[0]))


@contextmanager
def warehouse() -> Iterator[Warehouse]:
    house = Warehouse()
    handler = type("Handler", (_Handler,), {"house": house})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    house.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield house
    finally:
        server.shutdown()
        server.server_close()

"""`make bench-client`: requests per second of the service client beside a bare `AsyncOpenAI` loop, in one run.

The server is a process of its own that answers every chat with the same reply of four rows after a fixed pause. Each
side sends the same prompts at the same concurrency, in turn, several times; medians count. Then the client's replies
are read back from its cache. Writes `results/client.json` and the table `client`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.project import machine, save
from understudy.config import ServiceConfig
from understudy.config.models import Price
from understudy.models.account import Account
from understudy.models.service import ServiceModel

LATENCY_S = 0.02
REPEATS = 5
MIN_SHARE, MIN_CACHED = 0.85, 5000
DOCUMENT = "The course on optics is taught by Ada Marlow and starts on Monday at 9:15 in the old library. " * 20
ROW = {"question": "Who teaches the course on optics?", "answer": "Ada Marlow teaches it.", "facts": ["Ada Marlow"]}
SYSTEM = {"role": "system", "content": "You write training data. You reply with JSON only."}


class Fixed(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as little of it as a client needs, so that the client is what is measured."""

    reply = b""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.held = transport, b""

    def data_received(self, data: bytes) -> None:
        self.held += data
        head = self.held.find(b"\r\n\r\n")
        if head < 0:
            return
        length = int(self.held[:head].lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self.held) >= head + 4 + length:
            self.held = self.held[head + 4 + length :]
            asyncio.get_running_loop().call_later(LATENCY_S, self.transport.write, self.reply)


async def serve() -> None:
    """Print the port and answer until the process is stopped."""
    content = json.dumps({"examples": [ROW] * 4})
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 480, "completion_tokens": 130, "total_tokens": 610}
    base = {"id": "x", "object": "chat.completion", "created": 1, "model": "fixed-1"}
    body = json.dumps({**base, "choices": [choice], "usage": usage}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    Fixed.reply = head.encode() + body
    server = await asyncio.get_running_loop().create_server(Fixed, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def bare(url: str, chats: list[Any], concurrency: int) -> float:
    """Requests per second of the loop that one would write by hand."""
    import openai

    async def go() -> float:
        async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0) as client:
            free = asyncio.Semaphore(concurrency)

            async def one(chat: Any) -> str | None:
                async with free:
                    reply = await client.chat.completions.create(
                        model="fixed-1", messages=chat, temperature=0, max_tokens=2048
                    )
                    return reply.choices[0].message.content

            await one(chats[0])
            begin = time.perf_counter()
            await asyncio.gather(*map(one, chats))
            return len(chats) / (time.perf_counter() - begin)

    return asyncio.run(go())


def ours(url: str, chats: list[Any], concurrency: int, folder: Path, budget: float | None = 1e6) -> float:
    """Requests per second with everything on: budget, prices, limits per minute, cache."""
    cfg = ServiceConfig(
        provider="openai", model="fixed-1", concurrency=concurrency, price=Price(prompt=1.0, completion=3.0),
        requests_per_minute=1_000_000, tokens_per_minute=1_000_000_000,
    )  # fmt: skip
    account = Account(folder / "spending.jsonl", budget)
    with closing(ServiceModel(cfg, base_url=url, cache=folder / "cache", account=account)) as model:
        model.ask([[SYSTEM, {"role": "user", "content": "first"}]], model.sampling())
        begin = time.perf_counter()
        answers = model.ask(chats, model.sampling())
        took = time.perf_counter() - begin
    failed = [a for a in answers if isinstance(a, Exception)]
    if failed:
        raise failed[0]
    return len(chats) / took


def measure(count: int, repeats: int, concurrency: int) -> dict[str, Any]:
    """Rates of both sides in turn, and of the cache."""
    chats = [[SYSTEM, {"role": "user", "content": f"{DOCUMENT}\n{i}"}] for i in range(count)]
    found: dict[str, list[float]] = {"bare": [], "ours": [], "cached": []}
    command = [sys.executable, "-m", "benchmarks.client", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
            for _ in range(repeats):
                with tempfile.TemporaryDirectory() as folder:
                    found["bare"].append(bare(url, chats, concurrency))
                    found["ours"].append(ours(url, chats, concurrency, Path(folder)))
                    found["cached"].append(ours(url, chats, concurrency, Path(folder)))
        finally:
            server.terminate()
    rates = {name: round(statistics.median(values), 1) for name, values in found.items()}
    shares = [mine / theirs for mine, theirs in zip(found["ours"], found["bare"], strict=True)]
    return {**rates, "share": round(statistics.median(shares), 3), "all": found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve())
        return 0
    results = {str(c): measure(args.requests, args.repeats, c) for c in (8, 32)}
    save("client", {"machine": machine(), "requests": args.requests, "latency_s": LATENCY_S, "concurrency": results})
    rows = [
        (c, f"{r['bare']:,.0f}", f"{r['ours']:,.0f}", f"{r['share']:.2f}", f"{r['cached']:,.0f}")
        for c, r in results.items()
    ]
    header = ("requests at once", "bare AsyncOpenAI, /s", "understudy, cold cache, /s", "share", "from the cache, /s")
    text = tables.table(header, rows)
    tables.update("client", text)
    print(text)
    short = [c for c, r in results.items() if r["share"] < MIN_SHARE or r["cached"] < MIN_CACHED]
    for c in short:
        print(f"at {c} requests at once the client misses {MIN_SHARE} or {MIN_CACHED} replies/s", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())

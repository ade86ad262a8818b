"""Which URLs may be asked, and which addresses connected to.

One parser reads a URL, and what it read is what is connected to. The address policy is decided where the connection is
made: a name is resolved once, every address must be public, and the socket goes to that very address, so that a name
that changes its answer (rebinding) gains nothing. Messages never show an address that a name resolved to.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpcore2
import httpx2

from understudy.data.clean import Fault
from understudy.errors import ConfigError

PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_.])?|[0-9a-f:.]+")
UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Prefixes whose addresses carry an IPv4 address in the last 32 bits: compatible, mapped, translated, NAT64.
CARRIERS = [ipaddress.IPv6Network(p) for p in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")]
NAT64 = CARRIERS[-1]
ISATAP = (0x00005EFE, 0x02005EFE)

Resolver = Callable[[str, int], list[str]]


class Blocked(Exception):
    """The connection would have gone to an address that is not public."""


class NoAddress(httpcore2.ConnectError):
    """The name servers know no address for a host."""


class Address(NamedTuple):
    """A URL as it was read; `url` is its normal form, with the host in ASCII."""

    url: str
    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def parse(text: str, base: Address | None = None) -> Address:
    """Read a URL, or a link relative to `base`. Raises Fault URL_SCHEME, URL_MALFORMED; the fragment is dropped."""
    shown = text[:200]
    if UNSAFE.search(text):
        raise Fault("URL_MALFORMED", f"{shown!r} holds a backslash, white space or a control character")
    try:
        given = httpx2.URL(text)
        url = httpx2.URL(base.url).join(given) if base else given
        host, port = url.raw_host.decode("ascii").lower(), url.port
    except (httpx2.InvalidURL, ValueError) as e:
        raise Fault("URL_MALFORMED", f"{shown!r}: {e}") from None
    if url.scheme not in PORTS:
        raise Fault("URL_SCHEME", f"{shown!r} has the scheme {url.scheme or 'none'!r}; http and https are read")
    if url.userinfo:
        raise Fault("URL_MALFORMED", f"{url.scheme}://***@{host}: a user name stands in the URL")
    if not HOST.fullmatch(host) or ".." in host or len(host) > 253:
        raise Fault("URL_MALFORMED", f"{shown!r} has no plain host name")
    number = PORTS[url.scheme] if port is None else port
    if not 0 < number < 65536:
        raise Fault("URL_MALFORMED", f"{shown!r} has the port {number}")
    target = url.raw_path.decode("ascii") or "/"
    bare = Address("", url.scheme, host, number, target)
    return bare._replace(url=f"{bare.origin}{target}")


def is_public(address: str) -> bool:
    """Whether an IP address, and any IPv4 address that it carries, is on the public internet."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast
    if any(ip in carrier for carrier in CARRIERS):
        return ip in NAT64 and is_public(str(_last_v4(ip)))
    if ip.sixtofour and not is_public(str(ip.sixtofour)):
        return False
    if (int(ip) >> 32) & 0xFFFFFFFF in ISATAP and not is_public(str(_last_v4(ip))):
        return False
    return ip in GLOBAL_UNICAST and ip.is_global


def _last_v4(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)


def refuse_literal(address: Address, listed: bool) -> None:
    """Raise Fault URL_BLOCKED for a host that is itself a private address; names are decided at the connection."""
    try:
        # Resolvers read `127.1`, `0x7f000001` and `2130706433` as addresses too.
        number = address.host if ":" in address.host else socket.inet_ntoa(socket.inet_aton(address.host))
    except OSError:
        return
    if not listed and not is_public(number):
        raise blocked(address)


def blocked(address: Address) -> Fault:
    fix = "list the host under fetch.allow_hosts if you mean it"
    return Fault("URL_BLOCKED", f"{address.netloc} is not on the public internet; {fix}")


def allowed_hosts(names: Iterable[str]) -> frozenset[str]:
    """`host:port` of each listed host. Raises ConfigError URL_MALFORMED."""
    found = set()
    for name in names:
        try:
            for scheme in PORTS:
                address = parse(f"{scheme}://{name}/")
                found.add(f"{address.host}:{address.port}")
        except Fault as fault:
            raise ConfigError("URL_MALFORMED", "fetch.allow_hosts", fault.detail, "write host or host:port") from None
    return frozenset(found)


def resolve(host: str, port: int) -> list[str]:
    """The system's answer for a name: its addresses, in its order. Raises OSError."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass
class Clock:
    """The deadline of the page in hand, and the bytes that its answers may have."""

    deadline: float = 0.0
    bytes_left: int = 0

    def left(self, timeout: float | None = None) -> float:
        """Seconds that the next read may take. Raises httpcore2.ReadTimeout when there are none."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise httpcore2.ReadTimeout("the deadline has passed")
        return min(seconds, timeout) if timeout else seconds


@dataclass
class Connector(httpcore2.NetworkBackend):
    """Opens connections for the HTTP client, to public addresses only, within the page's deadline.

    `listed` (`host:port`) may have any address while `waived` is set.
    """

    clock: Clock
    listed: frozenset[str] = frozenset()
    resolver: Resolver = resolve
    waived: bool = True
    system: httpcore2.SyncBackend = field(default_factory=httpcore2.SyncBackend)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Raises Blocked, httpcore2.ConnectError, httpcore2.ConnectTimeout."""
        free = self.waived and f"{host}:{port}" in self.listed
        try:
            addresses = self.resolver(host, port)
        except (OSError, UnicodeError) as e:
            raise NoAddress(host) from e
        if not addresses or not (free or all(is_public(address) for address in addresses)):
            raise Blocked(host)
        problem: Exception = httpcore2.ConnectError("no address answers")
        for address in addresses[:4]:
            try:
                stream = self.system.connect_tcp(address, port, self.clock.left(timeout), None, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as e:
                problem = e
                continue
            peer = str(stream.get_extra_info("server_addr")[0])
            if not (free or is_public(peer)):
                stream.close()
                raise Blocked(host)
            return _Stream(stream, self.clock)
        raise problem


class _Stream(httpcore2.NetworkStream):
    """A connection that keeps to the clock, whatever the client asks for; `last` is what came last."""

    def __init__(self, inner: httpcore2.NetworkStream, clock: Clock) -> None:
        self.inner, self.clock, self.last = inner, clock, b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self.inner.read(max_bytes, self.clock.left(timeout))
        self.clock.bytes_left -= len(data)
        if self.clock.bytes_left < 0:
            raise Fault("BODY_LIMIT", "the answer is longer than fetch.max_page_bytes")
        self.last = data or self.last
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.inner.write(buffer, self.clock.left(timeout))

    def close(self) -> None:
        self.inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self.inner.start_tls(ssl_context, server_hostname, self.clock.left(timeout)), self.clock)

    def get_extra_info(self, info: str) -> Any:
        return self if info == "guarded" else self.inner.get_extra_info(info)

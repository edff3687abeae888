"""Who may look at what is for operators.

The rule: from this machine it is open, from anywhere else it needs the token, and without one it is not there. The
peer's address decides, never a header; a header can only close the door:

    a Host that is none of this machine's own names    a browser was led here by a name of somebody else's
    Forwarded, Via, X-Forwarded-..., X-Real-IP         a proxy stands in between, so the peer is the proxy's address
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from ipaddress import IPv6Address, ip_address

from quart.wrappers import Request

from operon.config import Settings
from operon.http.exchange import scope_of

OWN_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE | re.ASCII)
PROXY_HEADERS = frozenset({"forwarded", "via", "x-real-ip"})
PROXY_PREFIX = "x-forwarded-"


class Verdict(Enum):
    """What becomes of a request."""

    LET_IN = auto()
    UNKNOWN = auto()  # as if there were nothing here
    NO_TOKEN = auto()  # there is one, and the request does not have it


def judge(
    peer: str | None, hosts: Sequence[str], headers: Iterable[str], credentials: Sequence[str], token: str | None
) -> Verdict:
    """Who asks, from where: the peer's address, its Host and Authorization headers, the names of all its headers."""
    if token is not None and has_token(credentials, token):
        return Verdict.LET_IN
    if is_loopback(peer) and is_own(hosts) and not any(is_proxys(name) for name in headers):
        return Verdict.LET_IN
    return Verdict.UNKNOWN if token is None else Verdict.NO_TOKEN


def verdict(request: Request, token: str | None) -> Verdict:
    """Who asks with this request."""
    client = scope_of(request).get("client")
    headers = request.headers
    return judge(
        None if not client else str(client[0]),
        headers.getlist("host"),
        [name for name, _ in headers.items()],
        headers.getlist("authorization"),
        token,
    )


def is_served(settings: Settings) -> bool:
    """Whether there is anything at all: it listens on this machine only, or there is a token."""
    return settings.admin_token is not None or is_loopback(settings.host) or settings.host.lower() == "localhost"


def has_token(credentials: Sequence[str], token: str) -> bool:
    if len(credentials) != 1:
        return False
    scheme, _, given = credentials[0].partition(" ")
    # In constant time, whatever was sent; a token that is not ASCII is compared as the bytes that it is.
    equal = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    return scheme.lower() == "bearer" and equal


def is_loopback(address: str | None) -> bool:
    try:
        found = ip_address(address or "")
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped.is_loopback
    return found.is_loopback


def is_own(hosts: Sequence[str]) -> bool:
    return len(hosts) == 1 and OWN_HOST.fullmatch(hosts[0]) is not None


def is_proxys(header: str) -> bool:
    name = header.lower()
    return name in PROXY_HEADERS or name.startswith(PROXY_PREFIX)

"""Request -> the address and the user agent it came from. Pure, and never an exception."""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from django.http import HttpRequest

# As much of a User-Agent header as is stored and parsed.
USER_AGENT_LENGTH = 512

# No address is longer, with brackets, a zone and a port.
ADDRESS_LENGTH = 100
# What servers and proxies write around an address: [v6], [v6]:port, v4:port.
WITH_PORT = re.compile(r"\[(?P<v6>[^][]*)\](?::\d+)?|(?P<v4>[\d.]+):\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request came from, as far as it can be known: None and "" are "unknown"."""

    address: str | None
    user_agent: str

    @property
    def network(self) -> str:
        """
        The network of the address, or "": its first 24 bits, or 48 of IPv6, which is what a
        provider gives to one place, more or less.
        """
        if self.address is None:
            return ""
        bits = 48 if ":" in self.address else 24
        return str(ipaddress.ip_network(f"{self.address}/{bits}", strict=False))


def client_of(request: HttpRequest, trusted_proxies: int) -> Client:
    """
    Return where a request came from.

    Every proxy appends the address that it saw to X-Forwarded-For, so with ``trusted_proxies`` of
    our own the n-th entry from the right is the first that none of them vouches for, and all that
    is left of it could be made up by the visitor. A request with fewer entries went round the
    proxies: its own address is the truth about it.
    """
    address = request.META.get("REMOTE_ADDR", "")
    if trusted_proxies > 0 and (forwarded := request.META.get("HTTP_X_FORWARDED_FOR")):
        # An empty entry counts as one: to skip it would move the place that visitors can write to.
        entries = forwarded.rsplit(",", trusted_proxies)
        if len(entries) >= trusted_proxies:
            address = entries[-trusted_proxies]
    address = address.strip()
    known = _normalised(address) if len(address) <= ADDRESS_LENGTH else None
    return Client(known, _printable(request.META.get("HTTP_USER_AGENT", "")))


def is_page(request: HttpRequest) -> bool:
    """Tell a person who goes to a page from a script that calls an API."""
    if mode := request.headers.get("Sec-Fetch-Mode"):
        return mode == "navigate"
    return request.get_preferred_type(["text/html", "application/json"]) == "text/html"


# A visitor comes more than once, and to parse an address takes as long as to open a session.
@lru_cache(maxsize=1000)
def _normalised(text: str) -> str | None:
    if match := WITH_PORT.fullmatch(text):
        text = match["v6"] or match["v4"]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:  # the empty name of a unix socket, "unknown", garbage
        return None
    if isinstance(address, ipaddress.IPv6Address):
        # Without its zone, which means something on one machine only and which columns for
        # addresses refuse; and v4 as v4, however the server's socket is bound.
        address = address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return str(address)


def _printable(text: str) -> str:
    """
    Return the text cut, and without NUL, which PostgreSQL refuses, other control characters,
    which forge log lines, lone surrogates and bidirectional overrides.
    """
    text = text[:USER_AGENT_LENGTH]
    return text if text.isprintable() else "".join(filter(str.isprintable, text))

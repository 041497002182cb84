"""The IP address that a request came from, and what its browser says of itself. Nothing raises."""

import ipaddress
import logging
import re
import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from django.http import HttpRequest

from django_sessionkit.conf import conf
from django_sessionkit.problems import tells_problems

logger = logging.getLogger("django_sessionkit")

# The methods that only ask for something (RFC 9110 §9.2.1).
SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")

# Characters of a User-Agent header, and of client hints, that are stored and parsed.
USER_AGENT_LENGTH = 512

# What a browser says beside its user agent, if it is asked to (https://wicg.github.io/ua-client-
# hints/): the names of the headers without "Sec-CH-UA-". The longest is the last: it may be cut.
HINTS = {
    name: f"HTTP_SEC_CH_UA_{name.upper().replace('-', '_')}"
    for name in ("Platform", "Platform-Version", "Model", "Mobile", "Form-Factors")
}
BRANDS, ALL_BRANDS = "HTTP_SEC_CH_UA", "HTTP_SEC_CH_UA_FULL_VERSION_LIST"
# Those of them that a browser sends only to a site that has asked for them, by Accept-CH.
ASKED = ("Full-Version-List", "Platform-Version", "Model", "Form-Factors")

# Characters of each thing that an app says of itself. The longest is what devices.py reads.
SAID_LENGTH = 40
# Characters. No address is longer, even with brackets, a zone and a port.
ADDRESS_LENGTH = 100
# Characters. What browsers accept takes 150, and a header can have 64 KB.
ACCEPT_LENGTH = 1000
QUALITY = re.compile(r"[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.ASCII)
# Servers and proxies also write an address as [v6], [v6]:port or v4:port.
WITH_PORT = re.compile(r"\[(?P<v6>[^][]*)\](?::\d+)?|(?P<v4>[\d.]+):\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request came from. None and "" mean that this is not known."""

    address: str | None
    user_agent: str
    # The client hints that devices.py reads, "Platform="Windows" | Mobile=?0 | UA=..." say.
    hints: str = ""

    @property
    def has_all_hints(self) -> bool:
        """Whether the browser has sent more hints than those that it always sends."""
        return any(f"{name}=" in self.hints for name in ASKED)

    @property
    def recorded_address(self) -> str | None:
        """The address as far as SESSIONKIT_ADDRESSES lets a row have it."""
        if conf.SESSIONKIT_ADDRESSES == "whole":
            return self.address
        if conf.SESSIONKIT_ADDRESSES == "truncated":
            return self.network.partition("/")[0] or None
        return None

    @property
    def network(self) -> str:
        """The network of the address, as network_of() has it, or "" if no address is known."""
        return network_of(self.address) if self.address else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """
    A client without cookies: an app on a telephone, a program. It may say what it is when somebody
    signs in with it. "" and None mean that it does not.
    """

    name: str = ""  # of the app: "Shop"
    version: str = ""  # "2.3.1"
    system: str = ""  # "Android"
    system_version: str = ""  # "14"
    model: str = ""  # of the device: "Pixel 8"
    # What the user calls the device, as LabelForm has cleaned it: "Anna's telephone".
    label: str = ""
    # Which device it is, as an answer to an earlier sign-in has said. See visit/browsers.py.
    device: uuid.UUID | None = None
    # Whether the session may get another key by itself: then the app has to take it.
    takes_new_keys: bool = True

    @property
    def hints(self) -> str:
        """What the app says of itself, in the form of client hints, as devices.py reads them."""
        known = {
            "App": self.name,
            "App-Version": self.version,
            "Platform": self.system,
            "Platform-Version": self.system_version,
            "Model": self.model,
        }
        parts = [f'{name}="{said}"' for name, value in known.items() if (said := _said(value))]
        return " | ".join(parts) if self.name else ""


# What is known of the client of a request with a session key in its header.
UNKNOWN_APP = App()


class Parent(NamedTuple):
    """The session of an app that opens another one, in a web view."""

    handle: uuid.UUID
    facts: Any  # of that session: see backends/facts.py
    # The device of the app, and what its row says of that: both sessions are on one device.
    browser: uuid.UUID | None
    hints: str
    label: str


def _said(text: str) -> str:
    """Return what an app says, as far as it can stand between quotes in client hints."""
    return re.sub(r'["\\|]', "", _printable(text))[:SAID_LENGTH].strip()


class Visit:
    """
    What the middleware knows of a request and keeps as ``request.sessionkit``, for sessions that
    somebody else puts on the request: a package that finds them by a header, say.
    """

    __slots__ = ("app", "background", "browser", "client", "others", "parent")

    def __init__(self, client: Client, background: bool, app: App | None = None) -> None:
        self.client = client
        self.background = background
        # The client, if the key of the session travels in headers: see visit/bearer.py.
        self.app = app
        # The session that opens another one by this request: see handover.py.
        self.parent: Parent | None = None
        # Which browser has signed in by this request: the answer is to tell the browser.
        self.browser: uuid.UUID | None = None
        self.others: list[Any] = []  # those sessions, as far as they were used


def client_of(request: HttpRequest, trusted_proxies: int) -> Client:
    """
    Return where a request came from, if that many proxies of the site are before it.

    Every proxy appends the address that it saw to X-Forwarded-For. With n trusted proxies, the n-th
    entry from the right is the address that the first of them saw: the visitor's. The visitor can
    make up everything to the left of that entry. A request with fewer entries has not passed the
    proxies, so its own address (REMOTE_ADDR) counts.
    """
    address = request.META.get("REMOTE_ADDR") or ""  # some servers say None
    if trusted_proxies > 0 and (forwarded := request.META.get("HTTP_X_FORWARDED_FOR")):
        # Count empty entries, too: skipping one would lead to an entry that visitors can make up.
        entries = forwarded.rsplit(",", trusted_proxies)
        if len(entries) >= trusted_proxies:
            address = entries[-trusted_proxies]
    known = address_in(address)
    if trusted_proxies == 0 and "HTTP_X_FORWARDED_FOR" in request.META:
        _hint_at_proxy(known)
    user_agent = _printable(request.META.get("HTTP_USER_AGENT") or "")
    return Client(known, user_agent, _hints(request.META) if BRANDS in request.META else "")


def network_of(address: str) -> str:
    """
    Return the network of an address: the first 24 bits of IPv4, or the first 48 bits of IPv6. That
    is about what providers give to a place.
    """
    bits = 48 if ":" in address else 24
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


def address_in(text: str) -> str | None:
    """Return the address that this text says, in the usual way to write it, or None."""
    text = text.strip()
    return _normalised(text) if len(text) <= ADDRESS_LENGTH else None


def _hints(headers: dict[str, Any]) -> str:
    """Return the client hints of a browser that sends any. Browsers that do send its brands."""
    keys = (*HINTS.values(), ALL_BRANDS, BRANDS)
    return _joined(*[(headers.get(key) or "")[:USER_AGENT_LENGTH] for key in keys])


# A browser says the same with each request, of which few write it anywhere.
@lru_cache(maxsize=256)
def _joined(*values: str) -> str:
    *some, full, brands = values
    parts = [f"{name}={value}" for name, value in zip(HINTS, some, strict=True) if value]
    return _printable(" | ".join([*parts, f"Full-Version-List={full}" if full else f"UA={brands}"]))


_has_hinted = False


def _hint_at_proxy(address: str | None) -> None:
    """
    Say in the log, once, that a request seems to have passed a proxy that the site does not count.
    Only where it comes from inside: elsewhere, visitors could make up the header.
    """
    global _has_hinted
    if _has_hinted or (address and ipaddress.ip_address(address).is_global):
        return
    _has_hinted = True
    logger.warning(
        "A request with X-Forwarded-For came from a private address, but SESSIONKIT_TRUSTED_PROXIES"
        " is 0: if that was a proxy of yours, its address is shown as the visitor's. Set"
        " SESSIONKIT_TRUSTED_PROXIES to the number of your proxies."
    )


def is_page(request: HttpRequest) -> bool:
    """
    Tell a person who opens a page from a script: by what a browser says it is doing or, where it
    does not say so, by whether HTML is named among what is accepted. "*/*" is what libraries send.
    What asks a view that has no pages is a script.
    """
    if tells_problems(request) or is_of_app(request):
        return False
    if mode := request.META.get("HTTP_SEC_FETCH_MODE"):
        return bool(mode == "navigate")
    return _prefers_html(request.META.get("HTTP_ACCEPT") or "")


def is_of_browser(request: HttpRequest) -> bool:
    """
    Tell whether a request is for a page, or from one: by fetch(), HTMX, an image. A page that keeps
    the session key itself, and sends it in a header, is an app like others.
    """
    return not is_of_app(request) and (
        is_page(request) or bool(request.META.get("HTTP_SEC_FETCH_MODE"))
    )


def is_of_app(request: HttpRequest) -> bool:
    """Tell whether the key of the request's session travels in headers. See visit/bearer.py."""
    visit: Visit | None = getattr(request, "sessionkit", None)
    return visit is not None and visit.app is not None


def _prefers_html(accept: str) -> bool:
    """
    Tell whether an Accept header names HTML, and does not prefer JSON: by the qualities and, where
    these are the same, by what is named first.

    Django's parser of this header raises errors for some headers, and takes seconds for others.
    """
    asked: dict[str, tuple[float, int]] = {}
    for number, entry in enumerate(accept[:ACCEPT_LENGTH].lower().split(",")):
        kind, *parameters = entry.split(";")
        given = [match[1] for each in parameters if (match := QUALITY.fullmatch(each))]
        kind, quality = kind.strip(" \t"), float(given[-1]) if given else 1.0
        asked[kind] = max((quality, -number), asked.get(kind, (0.0, 0)))
    html, json = (asked.get(kind, (0.0, 0)) for kind in ("text/html", "application/json"))
    return html[0] > 0 and html >= json


# Visitors come more than once, and parsing an address takes as long as opening a session.
@lru_cache(maxsize=1000)
def _normalised(text: str) -> str | None:
    if match := WITH_PORT.fullmatch(text):
        text = match["v6"] or match["v4"]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:  # the empty name of a unix socket, "unknown", garbage
        return None
    if isinstance(address, ipaddress.IPv6Address):
        # Without the zone: it means something on one machine only, and columns for addresses refuse
        # it. A server on an IPv6 socket sees IPv4 addresses as mapped ones: map them back.
        address = address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return str(address)


def _printable(text: str) -> str:
    """
    Return the text, cut to USER_AGENT_LENGTH, without characters that cannot be printed. PostgreSQL
    refuses NUL, other control characters forge lines in logs, and bidirectional overrides and lone
    surrogates spoil pages.
    """
    text = text[:USER_AGENT_LENGTH]
    return text if text.isprintable() else "".join(filter(str.isprintable, text))

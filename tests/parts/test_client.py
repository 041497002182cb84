"""Request -> address and user agent, whatever a request says."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from django_sessionkit.visit import client as visit_client
from django_sessionkit.visit import cookies
from django_sessionkit.visit.client import (
    ACCEPT_LENGTH,
    USER_AGENT_LENGTH,
    Client,
    _normalised,
    client_of,
    is_page,
)
from django_sessionkit.visit.devices import device_of


def client(trusted_proxies: int = 0, **meta: Any) -> Client:
    request = RequestFactory().get("/", **{"REMOTE_ADDR": "192.0.2.1", **meta})
    return client_of(request, trusted_proxies)


def address(remote_addr: str) -> str | None:
    return client(REMOTE_ADDR=remote_addr).address


def forwarded(trusted_proxies: int, header: str) -> str | None:
    return client(trusted_proxies, HTTP_X_FORWARDED_FOR=header).address


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1\t", "192.0.2.1"),
        ("192.0.2.1:50123", "192.0.2.1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:50123", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:50123", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:50123", "fe80::1"),
        ("fe80::1%<script>", "fe80::1"),
        ("::ffff:192.0.2.1%eth0", "192.0.2.1"),
    ],
)
def test_addresses_are_written_in_one_way(written: str, meant: str):
    assert address(written) == meant


@pytest.mark.parametrize(
    "garbage",
    [
        "",  # a unix socket
        "unix:",
        "unknown",
        "_hidden",
        "localhost",
        "<script>",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "192.0.2.01",
        "192.0.2.1/24",
        "192.0.2.1:",
        "192.0.2.1:http",
        "192.0.2.1\0",
        "\N{ARABIC-INDIC DIGIT ONE}92.0.2.1",
        "192.0.2.1:\N{ARABIC-INDIC DIGIT ONE}",
        "3221225985",
        "[192.0.2.1",
        "[]",
        "[::1",
        "::1]",
        "[::1]50123",
        "[[::1]]",
        ":::1",
        "%eth0",
        "[" * 5000,
        "1" * 5000,
        "1." * 2500,
        ":" * 5000,
        "::1%" + "a%" * 2500,
        "192.0.2.1:" + "1" * 5000 + "!",
    ],
)
def test_what_is_no_address_is_unknown(garbage: str):
    assert address(garbage) is None


def test_a_long_address_is_not_remembered():
    before = _normalised.cache_info().currsize
    assert address(" " * 60_000 + "192.0.2.1") == "192.0.2.1"
    assert address("1" * 60_000) is None
    assert _normalised.cache_info().currsize <= before + 1


def test_a_server_that_says_nothing_of_the_peer_leaves_it_unknown():
    request = RequestFactory().get("/")
    del request.META["REMOTE_ADDR"]
    assert client_of(request, 0) == Client(None, "")


@pytest.mark.parametrize("trusted_proxies", [0, 1])
def test_a_server_that_says_none_of_the_peer_leaves_it_unknown(trusted_proxies: int):
    nothing = {"REMOTE_ADDR": None, "HTTP_USER_AGENT": None, "HTTP_X_FORWARDED_FOR": None}
    assert client(trusted_proxies, **nothing) == Client(None, "")


@pytest.mark.standard("ASVS-4.1.3")
def test_x_forwarded_for_is_not_believed_without_a_proxy_of_ours():
    assert forwarded(0, "203.0.113.7") == "192.0.2.1"


def test_with_proxies_the_entry_of_the_outermost_counts():
    assert forwarded(1, "203.0.113.7") == "203.0.113.7"
    assert forwarded(2, "203.0.113.7, 10.0.0.1") == "203.0.113.7"


@pytest.mark.standard("ASVS-4.1.3")
def test_what_the_visitor_wrote_before_the_proxies_did_is_ignored():
    assert forwarded(1, "198.51.100.1, <script>, 203.0.113.7") == "203.0.113.7"
    assert forwarded(2, "198.51.100.1,unknown,,203.0.113.7,10.0.0.1") == "203.0.113.7"
    assert forwarded(1, "x, " * 1700 + "203.0.113.7") == "203.0.113.7"


def test_an_empty_entry_does_not_move_the_place_that_counts():
    # A proxy that is reached by a unix socket may append nothing.
    assert forwarded(1, "198.51.100.1, ") is None
    assert forwarded(2, "198.51.100.1, , 10.0.0.1") is None


def test_a_request_that_went_round_the_proxies_has_its_own_address():
    assert client(1).address == "192.0.2.1"
    assert forwarded(1, "") == "192.0.2.1"
    assert forwarded(3, "198.51.100.1, 203.0.113.7") == "192.0.2.1"


def test_garbage_where_the_address_should_be_is_unknown_rather_than_the_proxys():
    assert forwarded(1, "198.51.100.1, unknown") is None


def test_forwarded_addresses_are_read_like_others():
    assert forwarded(1, "[2001:DB8::1]:50123") == "2001:db8::1"
    assert forwarded(2, "::ffff:203.0.113.7, 10.0.0.1") == "203.0.113.7"


def test_a_proxy_behind_a_unix_socket_is_believed():
    request = client(1, REMOTE_ADDR="", HTTP_X_FORWARDED_FOR="203.0.113.7")
    assert request.address == "203.0.113.7"


def user_agent(header: str) -> str:
    return client(HTTP_USER_AGENT=header).user_agent


def test_user_agent_is_kept_as_it_came():
    assert user_agent("Mozilla/5.0 (X11; Linux) Ünï/1") == "Mozilla/5.0 (X11; Linux) Ünï/1"
    assert user_agent("<script>alert(1)</script>") == "<script>alert(1)</script>"


def test_request_without_a_user_agent_has_an_empty_one():
    assert client().user_agent == ""


def test_user_agent_is_cut():
    assert user_agent("x" * 100_000) == "x" * USER_AGENT_LENGTH
    assert USER_AGENT_LENGTH == 512  # the length of the column


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("NUL, which PostgreSQL refuses", "\0"),
        ("line feeds, which forge log lines", "\r\n"),
        ("escapes of terminals", "\x1b\x9b"),
        ("delete", "\x7f"),
        ("right-to-left override", "\u202e"),
        ("isolate", "\u2066"),
        ("line separator", "\u2028"),
        ("zero-width space", "\u200b"),
        ("half a character, which UTF-8 cannot express", "\ud800"),
    ],
)
@pytest.mark.standard("ASVS-16.4.1")
def test_user_agent_is_rid_of(name: str, text: str):
    assert user_agent(f"be{text}fore{text}") == "before"


# Client hints.

# What Chrome sends.
PIXEL = {
    "HTTP_SEC_CH_UA": '"Google Chrome";v="156", "Chromium";v="156"',
    "HTTP_SEC_CH_UA_MOBILE": "?1",
    "HTTP_SEC_CH_UA_PLATFORM": '"Android"',
}
ASKED = {
    "HTTP_SEC_CH_UA_FULL_VERSION_LIST": '"Google Chrome";v="156.0.8078.60"',
    "HTTP_SEC_CH_UA_PLATFORM_VERSION": '"16.0.0"',
    "HTTP_SEC_CH_UA_MODEL": '"Pixel 9"',
    "HTTP_SEC_CH_UA_FORM_FACTORS": '"Mobile"',
}


def test_hints_are_one_text():
    always = client(**PIXEL)
    brands = PIXEL["HTTP_SEC_CH_UA"]
    assert always.hints == f'Platform="Android" | Mobile=?1 | UA={brands}'
    assert not always.has_all_hints
    asked = client(**PIXEL, **ASKED)
    assert asked.hints == (
        'Platform="Android" | Platform-Version="16.0.0" | Model="Pixel 9" | Mobile=?1'
        ' | Form-Factors="Mobile" | Full-Version-List="Google Chrome";v="156.0.8078.60"'
    )
    assert asked.has_all_hints
    assert (
        device_of("Mozilla/5.0 (Linux; Android 10; K) Chrome/156", asked.hints).model == "Pixel 9"
    )


def test_browser_that_sends_no_brands_has_no_hints():
    assert client().hints == ""
    assert client(**ASKED).hints == ""


def test_hints_are_cut_and_can_be_printed_like_a_user_agent():
    long = client(**PIXEL | {"HTTP_SEC_CH_UA": "x" * 60_000, "HTTP_SEC_CH_UA_PLATFORM": None})
    assert long.hints == "Mobile=?1 | UA=" + "x" * (USER_AGENT_LENGTH - 15)
    assert client(HTTP_SEC_CH_UA="be\0\u202efore").hints == "UA=before"


@pytest.mark.parametrize(
    ("extent", "address", "recorded"),
    [
        ("whole", "2001:db8::1", "2001:db8::1"),
        ("truncated", "2001:db8:0:9:8::1", "2001:db8::"),
        ("truncated", "192.0.2.7", "192.0.2.0"),
        ("truncated", None, None),
        ("none", "192.0.2.7", None),
        ("a mistake", "192.0.2.7", None),
    ],
)
def test_address_is_recorded_as_far_as_the_site_wants(
    settings: Any, extent: str, address: str | None, recorded: str | None
):
    settings.SESSIONKIT_ADDRESSES = extent
    assert Client(address, "").recorded_address == recorded


# Pages and scripts.


def page(**meta: Any) -> bool:
    return is_page(RequestFactory().get("/", **meta))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("TEXT/HTML ; q=0.2 , */*;q=0.1", True),
        ("text/*", False),
        ("application/json", False),
        ("application/json, text/plain, */*", False),
        ("*/*", False),
        ("text/html, */*; q=0.01", True),
        ("application/json;q=0.5, text/html", True),
        ("application/json, text/html", False),
        ("application/json, */*;q=0.5", False),
        ("application/json, text/html;q=0.5", False),
        ("text/html;q=0.5, application/json;q=0.5", True),
        ("text/html;q=0, */*", False),
        ("text/html;q=0.000", False),
        ("text/html;level=1", True),
        ("text/html;q=0.1, text/html;q=0.9, application/json;q=0.5", True),
        ("text/html;q=nan, application/json;q=0.9", True),
        ("image/png", False),
        ("", False),
    ],
)
def test_what_names_html_and_does_not_prefer_json_is_a_page(accept: str, expected: bool):
    assert page(HTTP_ACCEPT=accept) is expected


def test_the_browser_says_itself_whether_it_navigates():
    assert page(HTTP_ACCEPT="application/json", HTTP_SEC_FETCH_MODE="navigate")
    assert page(HTTP_ACCEPT="*/*", HTTP_SEC_FETCH_MODE="navigate")
    assert not page(HTTP_ACCEPT="text/html", HTTP_SEC_FETCH_MODE="cors")
    assert not page(HTTP_SEC_FETCH_MODE="no-cors")


def test_who_says_nothing_about_itself_is_a_script():
    assert not page()
    assert not page(HTTP_ACCEPT=None)


# Headers that somebody has made up.


def hinted(text: str) -> str:
    return client(HTTP_SEC_CH_UA=text, HTTP_SEC_CH_UA_PLATFORM_VERSION=text).hints


# Every function that parses a header, and that header.
PARSERS: dict[str, Callable[[str], Any]] = {
    "Accept": lambda text: page(HTTP_ACCEPT=text),
    "Sec-Fetch-Mode": lambda text: page(HTTP_SEC_FETCH_MODE=text),
    "Cookie": lambda text: cookies.read(RequestFactory().get("/", HTTP_COOKIE=text)),
    "User-Agent": lambda text: device_of(client(HTTP_USER_AGENT=text).user_agent),
    "Sec-CH-UA": lambda text: device_of("Chrome/1", client(HTTP_SEC_CH_UA=text).hints),
    "Sec-CH-UA-Platform-Version": lambda text: device_of("Windows Chrome/1", hinted(text)),
    "X-Forwarded-For": lambda text: client(2, HTTP_X_FORWARDED_FOR=text).network,
    "REMOTE_ADDR": lambda text: client(REMOTE_ADDR=text).network,
}
# What the grammars of these headers are made of.
PIECES = [
    *" \t;,=*/\"'%._-:[]()+\\\0\xa0\xff",
    *["text/html", "*/*", "q=", "q=1e999", "a*=foo'x'%41", "sessionid", "Mozilla/5.0 ", "bot"],
    *["192.0.2.1", "::ffff:", "Windows", "Chrome/", "HeadlessChrome/", "a" * 32],
    *[" | ", "Platform=", '"13.0"', '"Brave";v="1"', "?0"],
]


@pytest.mark.parametrize("header", PARSERS)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_no_header_is_an_error(header: str, text: str):
    PARSERS[header](text)


def test_no_more_of_an_accept_header_is_read_than_a_browser_sends():
    """A header can have 64 KB, and to read all of that takes as long as the rest of a request."""
    request = RequestFactory().get("/", headers={"accept": "," * ACCEPT_LENGTH + "text/html"})
    assert not is_page(request)
    request = RequestFactory().get("/", headers={"accept": "," * 100 + "text/html"})
    assert is_page(request)


# A proxy that the site does not count.

HINT = "Set SESSIONKIT_TRUSTED_PROXIES to the number of your proxies."


@pytest.fixture
def hints(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A function that tells how often the log has hinted at a proxy, in a new process."""
    monkeypatch.setattr(visit_client, "_has_hinted", False)
    return lambda: sum(HINT in message for message in caplog.messages)


@pytest.mark.parametrize("proxy", ["10.0.0.5", "127.0.0.1", "::1", ""])
def test_the_log_says_once_that_a_proxy_is_not_counted(hints: Callable[[], int], proxy: str):
    for _ in range(3):
        found = client(REMOTE_ADDR=proxy, HTTP_X_FORWARDED_FOR="203.0.113.7\n, forged")
        assert found.address == (proxy or None)
    assert hints() == 1


def test_a_header_that_a_visitor_has_made_up_is_no_proxy(hints: Callable[[], int]):
    client(REMOTE_ADDR="8.8.8.8", HTTP_X_FORWARDED_FOR="10.0.0.5")
    client(REMOTE_ADDR="10.0.0.5")
    client(1, REMOTE_ADDR="10.0.0.5", HTTP_X_FORWARDED_FOR="203.0.113.7")
    assert hints() == 0

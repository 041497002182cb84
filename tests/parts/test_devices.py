"""User agent -> device, with ua-parser and without."""

import importlib.util
import re
import sys
import time
from collections.abc import Iterator

import pytest
from django.utils import translation

from django_sessionkit.visit import devices
from django_sessionkit.visit.devices import Device, device_of

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
WINDOWS = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT}"
MAC = f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {WEBKIT}"
LINUX = f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT}"
CHROME_OS = f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {WEBKIT}"
ANDROID = f"Mozilla/5.0 (Linux; Android 10; K) {WEBKIT}"
CUBOT = f"Mozilla/5.0 (Linux; Android 14; CUBOT X18 Build/U; wv) {WEBKIT}"
IPHONE = f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) {WEBKIT}"
IPAD = f"Mozilla/5.0 (iPad; CPU OS 18_7 like Mac OS X) {WEBKIT}"

# Browser, system, kind, and what such a device says of itself.
DEVICES = [
    re.split(r" [|] ?", line)
    for line in f"""
Chrome | Windows | desktop | {WINDOWS} Chrome/156.0.0.0 Safari/537.36
Chrome | macOS | desktop | {MAC} Chrome/156.0.0.0 Safari/537.36
Chrome | Linux | desktop | {LINUX} Chrome/156.0.0.0 Safari/537.36
Chrome | Chrome OS | desktop | {CHROME_OS} Chrome/156.0.0.0 Safari/537.36
Chrome | Android | mobile | {ANDROID} Chrome/156.0.0.0 Mobile Safari/537.36
Chrome | Android | mobile | {CUBOT} Version/4.0 Chrome/156.0.8078.60 Mobile Safari/537.36
Chrome | Android | tablet | {ANDROID} Chrome/156.0.0.0 Safari/537.36
Chrome | iOS | mobile | {IPHONE} CriOS/156.0.8078.60 Mobile/15E148 Safari/604.1
Safari | iOS | mobile | {IPHONE} Version/26.1 Mobile/15E148 Safari/604.1
Safari | iOS | tablet | {IPAD} Version/26.1 Mobile/15E148 Safari/604.1
Safari | macOS | desktop | {MAC} Version/26.1 Safari/605.1.15
Firefox | Windows | desktop | Mozilla/5.0 (Windows NT 10.0; rv:150.0) Gecko/20100101 Firefox/150.0
Firefox | Linux | desktop | Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:150.0) Gecko Firefox/150.0
Firefox | Android | mobile | Mozilla/5.0 (Android 15; Mobile; rv:150.0) Gecko/150.0 Firefox/150.0
Firefox | Android | tablet | Mozilla/5.0 (Android 15; Tablet; rv:150.0) Gecko/150.0 Firefox/150.0
Firefox | iOS | mobile | {IPHONE} FxiOS/150.0 Mobile/15E148 Safari/605.1.15
Edge | Windows | desktop | {WINDOWS} Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0
Edge | Android | mobile | {ANDROID} Chrome/156.0.0.0 Mobile Safari/537.36 EdgA/156.0.0.0
Edge | iOS | mobile | {IPHONE} Version/18.0 EdgiOS/156.0.3179.98 Mobile/15E148 Safari/604.1
Opera | Windows | desktop | {WINDOWS} Chrome/154.0.0.0 Safari/537.36 OPR/126.0.0.0
Samsung Internet | Android | mobile | {ANDROID} SamsungBrowser/29.0 Chrome/136 Mobile Safari/537.36
Facebook | Android | mobile | {ANDROID} Version/4.0 Chrome/156.0.8078.60 Mobile [FBAV/530.0.0.38;]
Instagram | iOS | mobile | {IPHONE} Mobile/15E148 Instagram 400.0.0.20.98 (iPhone16,2; iOS 18_7)
Internet Explorer | Windows | desktop | Mozilla/5.0 (Windows NT 10.0; Trident/7.0) like Gecko
curl |  | bot | curl/8.14.1
python-requests |  | bot | python-requests/2.34.2
HeadlessChrome | Linux | bot | {LINUX} HeadlessChrome/156.0.0.0 Safari/537.36
Googlebot |  | bot | {ANDROID} Chrome/156.0.8078.60 Mobile (compatible; Googlebot/2.1; +http://g)
GPTBot |  | bot | Mozilla/5.0 {WEBKIT}; compatible; GPTBot/1.3; +https://openai.com/gptbot
ClaudeBot |  | bot | Mozilla/5.0 (compatible; ClaudeBot/1.0; +claudebot@anthropic.com)
 |  | other | Mozilla/5.0
 |  | other |
 |  | other | {"() { :; }; echo x" * 30}
 |  | other | \0\x1b[31m\u202e<script>
""".strip("\n").split("\n")
]


@pytest.fixture(params=["built in", "ua-parser"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "built in":
        monkeypatch.setattr(devices, "ua_parser", None)
    else:
        pytest.importorskip("ua_parser")
    devices._device_of.cache_clear()
    yield request.param
    devices._device_of.cache_clear()


@pytest.mark.parametrize(("browser", "system", "kind", "user_agent"), DEVICES)
def test_device(browser: str, system: str, kind: str, user_agent: str):
    assert device_of(user_agent) == Device(browser, system, kind)


def test_ua_parser_names_what_is_too_rare_to_be_listed(parser: str):
    vivaldi = device_of(f"{WINDOWS} Chrome/154.0.0.0 Safari/537.36 Vivaldi/7.6")
    assert vivaldi.browser == ("Vivaldi" if parser == "ua-parser" else "Chrome")
    kaios = device_of("Mozilla/5.0 (Mobile; Nokia; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5")
    assert kaios.system == ("KaiOS" if parser == "ua-parser" else "")
    assert (kaios.browser, kaios.kind) == ("Firefox", "mobile")


def test_what_ua_parser_calls_android_is_named_as_without_it():
    # No place for a name would be worse than "Android on Android".
    found = device_of(f"Mozilla/5.0 (Linux; Android 14; wv) {WEBKIT} Version/4.0 Chrome/156 Mobile")
    assert found == Device("Chrome", "Android", "mobile")


def test_name_that_a_visitor_made_up_is_not_shown_at_any_length():
    name = "Buy-my-pills-" * 20
    assert device_of(f"{name}/1 CFNetwork/1 Darwin/23").browser == ""


@pytest.mark.parametrize(
    "hostile",
    ["a" * 100_000, "a-" * 50_000, "bot" * 30_000, "crawle" * 15_000, "Mozilla/5.0 " * 9_000,
     "Mozilla/5.0 " + " " * 90_000, "(" * 90_000, "Android " * 10_000, "[FB_IA" * 15_000],
)  # fmt: skip
def test_hostile_user_agent_takes_no_longer_than_others(hostile: str):
    device_of("the parsers are built with the first")
    started = time.perf_counter()
    device_of(hostile)
    assert time.perf_counter() - started < 0.1


def test_nothing_beyond_what_is_stored_is_looked_at():
    assert device_of("x" * 512 + " Firefox/150.0").browser == ""


def test_each_user_agent_is_parsed_once():
    device_of("curl/8")
    device_of("curl/8")
    assert devices._device_of.cache_info().hits == 1


def test_device_says_what_it_is():
    assert str(Device("Firefox", "Linux", "desktop")) == "Firefox on Linux"
    assert str(Device("curl", "", "bot")) == "curl"
    assert str(Device("", "Windows", "desktop")) == "Windows"
    assert str(Device("", "", "other")) == "Unknown device"


def test_device_says_it_in_the_language_of_who_reads():
    device = Device("Firefox", "Linux", "desktop")
    with translation.override("de"):
        assert str(device) == "Firefox unter Linux"
        assert str(Device("", "", "other")) == "Unbekanntes Gerät"
    assert str(device) == "Firefox on Linux"


def test_ua_parser_is_optional(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ua_parser", None)  # so that importing it fails
    spec = importlib.util.spec_from_file_location("devices_without_extras", devices.__file__)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.ua_parser is None
    assert str(module.device_of("curl/8.14.1")) == "curl"

"""User agent and client hints -> device, with ua-parser and without."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.template.loader import render_to_string
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
MyShop | iOS | mobile | MyShop/3.2 (iPhone; iOS 18)
MyShop | Android | mobile | MyShop/3.2 (Linux; Android 15)
My Shop | Windows | desktop | My Shop/3.2 (Windows 11)
 | Android | mobile | Dalvik/2.1.0 (Linux; U; Android 14; Pixel 9 Build/AP2A.240805.005)
 |  | other | MyShop/3.2
okhttp | Android | bot | okhttp/4.12.0 (Linux; Android 14)
okhttp |  | bot | okhttp/4.12.0
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
    found = device_of(user_agent)
    assert (found.browser, found.system, found.kind) == (browser, system, kind)


# What is known beyond the name, and what such a device says of itself.
DETAILS = [
    re.split(r" [|] ?", line)
    for line in f"""
Chrome 156 | {WINDOWS} Chrome/156.0.0.0 Safari/537.36
Chrome 156 | {MAC} Chrome/156.0.0.0 Safari/537.36
Chrome 156 | {ANDROID} Chrome/156.0.0.0 Mobile Safari/537.36
Chrome 156, iPhone | {IPHONE} CriOS/156.0.8078.60 Mobile/15E148 Safari/604.1
Safari 26, iPad | {IPAD} Version/26.1 Mobile/15E148 Safari/604.1
Safari 26 | {MAC} Version/26.1 Safari/605.1.15
Safari 13, macOS 10.14 | Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) Version/13.1 Safari/605
Safari 16, iOS 16, iPhone | Mozilla/5.0 (iPhone; CPU iPhone OS 16_5 like X) Version/16 Safari/6
Firefox 150, macOS 26 | Mozilla/5.0 (Macintosh; Intel Mac OS X 26.1; rv:150.0) Gecko Firefox/150.0
Firefox 150, Android 15 | Mozilla/5.0 (Android 15; Mobile; rv:150.0) Gecko/150.0 Firefox/150.0
Firefox 150, Android 15 | Mozilla/5.0 (Android 15; rv:150.0) Gecko/150.0 Firefox/150.0
Edge 156 | {WINDOWS} Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0
Opera 126, Windows 8.1 | Mozilla/5.0 (Windows NT 6.3) {WEBKIT} Chrome/154.0 OPR/126.0.0.0
Internet Explorer 11, Windows 7 | Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko
Facebook 530 | {ANDROID} Version/4.0 Chrome/156.0.8078.60 Mobile [FB_IAB/FB4A;FBAV/530.0.0.38;]
Chrome 156, Android 14, CUBOT X18 | {CUBOT} Version/4.0 Chrome/156.0.8078.60 Mobile Safari/537.36
Android 14, Pixel 9 | Dalvik/2.1.0 (Linux; U; Android 14; Pixel 9 Build/AP2A.240805.005)
Android 4, Nexus One | Mozilla/5.0 (Linux; U; Android 4.0.4; en-us; Nexus One Build/X) {WEBKIT}
MyShop 3, iOS 18, iPhone | MyShop/3.2 (iPhone; iOS 18)
Firefox 150 | Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:150.0) Gecko Firefox/150.0
 | Mozilla/5.0 (Windows NT 10.0) Firefox/
Android 15 | Mozilla/5.0 (Linux; Android 15; {"x" * 41})
 | curl/8.14.1
 |
""".strip("\n").split("\n")
]


@pytest.mark.parametrize(("details", "user_agent"), DETAILS)
def test_details(details: str, user_agent: str):
    assert device_of(user_agent).details == details


def test_an_update_makes_no_other_device():
    old = device_of(f"{CUBOT} Chrome/156.0.8078.60 Mobile Safari/537.36")
    new = device_of(f"{CUBOT} Chrome/157.0.8078.60 Mobile Safari/537.36".replace("14;", "15;"))
    assert old != new
    assert old.is_like(new)
    assert str(old) == str(new) == "Chrome on Android"


# What no user agent says.

CHROME = '"Chromium";v="156.0.8078.60", "Not;A=Brand";v="8.0.0.0", "Google Chrome";v="156.0.8078"'
BRAVE = '"Brave";v="156", "Chromium";v="156", "Not_A Brand";v="99"'
EDGE = '"Not(A:Brand";v="8", "Chromium";v="156", "Microsoft Edge";v="156"'
WEBVIEW = '"Android WebView";v="156", "Chromium";v="156"'
PIXEL = 'Platform="Android" | Platform-Version="16.0.0" | Model="Pixel 9"'
TABLET = 'Platform="Android" | Platform-Version="16.0.0" | Model="Pixel Tablet"'
PHONE = f"{ANDROID} Chrome/156.0.0.0 Mobile Safari/537.36"
APP = f"{ANDROID} Version/4.0 Chrome/156.0.8078.60 Mobile [FBAV/530.0.0.38;]"
ON_7 = f"Mozilla/5.0 (Windows NT 6.1; Win64; x64) {WEBKIT} Chrome/109.0.0.0 Safari/537.36"
ON_WINDOWS = f"{WINDOWS} Chrome/156.0.0.0 Safari/537.36"
ON_MAC = f"{MAC} Chrome/156.0.0.0 Safari/537.36"
ON_LINUX = f"{LINUX} Chrome/156.0.0.0 Safari/537.36"
ON_CHROME_OS = f"{CHROME_OS} Chrome/156.0.0.0 Safari/537.36"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; rv:150.0) Gecko/20100101 Firefox/150.0"

# Name, kind and details; the hints; and the user agent beside them.
HINTED = [
    (
        "Chrome on Windows | desktop | Chrome 156, Windows 11",
        f'Platform="Windows" | Platform-Version="15.0.0" | Mobile=?0 | Full-Version-List={CHROME}',
        ON_WINDOWS,
    ),
    (
        "Chrome on Windows | desktop | Chrome 156, Windows 11",
        'Platform="Windows" | Platform-Version="13.0.0"',
        ON_WINDOWS,
    ),
    (
        "Chrome on Windows | desktop | Chrome 156, Windows 10",
        'Platform-Version="10.0.0"',
        ON_WINDOWS,
    ),
    ("Chrome on Windows | desktop | Chrome 109, Windows 7", 'Platform-Version="0.1.0"', ON_7),
    (
        "Chrome on Android | mobile | Chrome 156, Android 16, Pixel 9",
        f'{PIXEL} | Mobile=?1 | Form-Factors="Mobile"',
        PHONE,
    ),
    (
        "Chrome on Android | tablet | Chrome 156, Android 16, Pixel Tablet",
        f'{TABLET} | Mobile=?1 | Form-Factors="Mobile", "Tablet"',
        PHONE,
    ),
    # A page as desktops see it.
    (
        "Chrome on Android | mobile | Chrome 156, Android 16, Pixel 9",
        f"{PIXEL} | Mobile=?1",
        ON_LINUX,
    ),
    (
        "Chrome on Android | tablet | Chrome 156, Android 16, Pixel Tablet",
        f"{TABLET} | Mobile=?0",
        ON_LINUX,
    ),
    ("Chrome on Linux | mobile | Chrome 156", 'Platform="Linux"', f"{CUBOT} Chrome/156.0 Mobile"),
    (
        "Chrome on macOS | desktop | Chrome 156, macOS 26",
        'Platform="macOS" | Platform-Version="26.1.0" | Form-Factors="Desktop"',
        ON_MAC,
    ),
    # Versions of these say nothing to people.
    (
        "Chrome on Chrome OS | desktop | Chrome 156",
        'Platform="Chromium OS" | Platform-Version="16181.61.0"',
        ON_CHROME_OS,
    ),
    (
        "Chrome on Linux | desktop | Chrome 156",
        'Platform="Linux" | Platform-Version="6.12.0"',
        ON_LINUX,
    ),
    (
        "Brave on macOS | desktop | Brave 156",
        f'Platform="macOS" | Mobile=?0 | UA={BRAVE}',
        ON_MAC,
    ),
    ("Edge on Windows | desktop | Edge 156", f"UA={EDGE}", f"{ON_WINDOWS} Edg/156.0.0.0"),
    # What is inside of an app.
    ("Facebook on Android | mobile | Facebook 530", f"UA={WEBVIEW}", APP),
    ("Facebook on Android | mobile | Facebook 530", f"UA={BRAVE}", APP),
    # What has another engine, or none, has not sent them.
    (
        "Firefox on Windows | desktop | Firefox 150",
        f'Platform="macOS" | Platform-Version="26" | UA={BRAVE}',
        FIREFOX,
    ),
    ("Unknown device | other | ", f'Platform="Windows" | UA={BRAVE}', ""),
    ("Program: curl | bot | ", f'Platform="Windows" | UA={BRAVE}', "curl/8.14.1"),
    # What says nothing, or is made up.
    (
        "Chrome on Windows | desktop | Chrome 156",
        'Platform="Unknown" | Platform-Version="" | Model="" | UA="Chromium";v="156"',
        ON_WINDOWS,
    ),
    (
        "Chrome on Windows | desktop | Chrome 156",
        'Platform | | = | UA=" | \\" | "\\\\";v="1 | Form-Factors=?0 | Platform-Version="x.0"',
        ON_WINDOWS,
    ),
    (
        "Chrome on Windows | desktop | Chrome 156",
        f'Platform-Version="{"9" * 30}" | Model="{"x" * 41}" | UA="{"x" * 41}";v="1"',
        ON_WINDOWS,
    ),
]


@pytest.mark.parametrize(("expected", "hints", "user_agent"), HINTED)
def test_client_hints(expected: str, hints: str, user_agent: str):
    found = device_of(user_agent, hints)
    assert f"{found} | {found.kind} | {found.details}" == expected


@pytest.mark.parametrize("name", ["Not;A=Brand", " Not A;Brand", "Not/A)Brand", "Not.A/Brand"])
def test_brand_that_is_made_up_is_not_shown(name: str):
    hints = f'UA="{name}";v="99", "Brave";v="156"'
    assert device_of(f"{MAC} Chrome/156.0.0.0", hints).browser == "Brave"


@pytest.mark.parametrize(
    "name", ["https://evil.example", "evil.example", "Call 0900 123456 at once!"]
)
def test_hint_that_is_no_name_is_not_shown(name: str):
    """It would be told in a mail."""
    hints = f'Platform="{name}" | UA="{name}";v="1"'
    assert str(device_of(f"{WINDOWS} Chrome/156.0.0.0", hints)) == "Chrome on Windows"


KNOWN = [
    ("Firefox on Windows", FIREFOX, ""),
    ("Brave on macOS", f"{MAC} Chrome/156.0.0.0", f"UA={BRAVE}"),
    ("Program: curl", "curl/8.14.1", ""),
    ("iOS", "Call 0900 123456/1 (iPhone; iOS 18)", ""),
    ("Windows", f"{WINDOWS} Chrome/156.0.0.0", 'UA="Call 0900 123456";v="1"'),
    ("Unknown device", "call-0900-123456-bot", ""),
]


@pytest.mark.parametrize(("expected", "user_agent", "hints"), KNOWN)
def test_name_of_its_own_is_not_known(expected: str, user_agent: str, hints: str):
    assert str(device_of(user_agent, hints).known) == expected


def test_ua_parser_names_what_is_too_rare_to_be_listed(parser: str):
    vivaldi = device_of(f"{WINDOWS} Chrome/154.0.0.0 Safari/537.36 Vivaldi/7.6")
    assert vivaldi.browser == ("Vivaldi" if parser == "ua-parser" else "Chrome")
    kaios = device_of("Mozilla/5.0 (Mobile; Nokia; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5")
    assert kaios.system == ("KaiOS" if parser == "ua-parser" else "")
    assert (kaios.browser, kaios.kind) == ("Firefox", "mobile")


def test_what_ua_parser_calls_android_is_named_as_without_it():
    # No place for a name would be worse than "Android on Android".
    found = device_of(f"Mozilla/5.0 (Linux; Android 14; wv) {WEBKIT} Version/4.0 Chrome/156 Mobile")
    assert str(found) == "Chrome on Android"


def test_name_that_a_visitor_made_up_is_not_shown_at_any_length():
    name = "Buy-my-pills-" * 20
    assert device_of(f"{name}/1 CFNetwork/1 Darwin/23").browser == ""
    assert device_of("This is you, on another device/1 (Windows)").browser == ""


def patterns(found: Any) -> Iterator[re.Pattern[str]]:
    """Return the regular expressions in the variables of a module."""
    if isinstance(found, re.Pattern):
        yield found
    elif isinstance(found, dict):
        yield from patterns(list(found.values()))
    elif isinstance(found, (list, tuple)):
        for each in found:
            yield from patterns(each)


def test_no_header_takes_long_because_nothing_in_a_pattern_goes_on_for_ever():
    """
    What is looked for at each place of a text must end soon: then no text takes longer than its
    length. One pattern is not looked for everywhere: it has to match a whole name.
    """
    endless = re.compile(r"(?<!\\)[*+]|,\}")
    found = [each for each in patterns(vars(devices)) if each.pattern]
    assert len(found) > 25
    without_classes = {each: re.sub(r"\[[^]]*\]", "x", each.pattern) for each in found}
    assert [each for each in found if endless.search(without_classes[each])] == [devices.GREASE]


def test_no_word_of_a_header_is_looked_at_from_each_of_its_parts():
    """Otherwise "a-a-a" takes as long as its length times that of a name."""
    assert device_of("a-" * 100 + "Googlebot").kind == "other"
    assert device_of("a-Googlebot-Image/1.0").browser == "a-Googlebot"


def test_nothing_beyond_what_is_stored_is_looked_at():
    assert device_of("x" * 512 + " Firefox/150.0").browser == ""
    assert device_of("Chrome/1", "x" * 512 + ' | Platform="macOS"').system == ""


def test_each_user_agent_is_parsed_once():
    device_of("curl/8")
    device_of("curl/8")
    assert devices._device_of.cache_info().hits == 1


def test_device_says_what_it_is():
    assert str(Device("Firefox", "Linux", "desktop")) == "Firefox on Linux"
    assert str(Device("curl", "", "bot")) == "Program: curl"
    assert str(Device("HeadlessChrome", "Linux", "bot")) == "Program: HeadlessChrome on Linux"
    assert str(Device("", "Windows", "desktop")) == "Windows"
    assert str(Device("", "", "other")) == "Unknown device"


def test_device_says_it_in_the_language_of_who_reads():
    device = Device("Firefox", "Linux", "desktop")
    with translation.override("de"):
        assert str(device) == "Firefox unter Linux"
        assert str(Device("", "", "other")) == "Unbekanntes Gerät"
    assert str(device) == "Firefox on Linux"


def test_each_kind_has_a_picture_of_its_own():
    kinds = ["desktop", "mobile", "tablet", "bot", "other"]
    pictures = {render_to_string("django_sessionkit/_icon.html", {"kind": kind}) for kind in kinds}
    assert len(pictures) == len(kinds)
    for picture in pictures:
        assert picture.startswith("<svg ")
        assert 'aria-hidden="true"' in picture
        assert 'stroke="currentColor"' in picture
        assert "style" not in picture


def test_ua_parser_is_optional(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ua_parser", None)  # so that importing it fails
    spec = importlib.util.spec_from_file_location("devices_without_extras", devices.__file__)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.ua_parser is None
    assert str(module.device_of("curl/8.14.1")) == "Program: curl"

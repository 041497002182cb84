"""
From what a browser says about itself to "Firefox on Linux": from its user agent and, where it sends
them, from its client hints (https://wicg.github.io/ua-client-hints/).

People recognise their devices without versions, and an update makes no other device. So versions
and model are apart. Browsers have frozen most of what their user agents say: Windows 11 is "10.0"
there, each telephone with Chrome is an "Android 10; K", and each Mac is a "10_15_7". Only client
hints tell more, and only Chromium has them.

The parser in this module is small. If ua-parser is installed (extra ``devices``), that package
names the browsers that are too rare to be listed here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

from django.utils.translation import gettext

try:
    import ua_parser
except ImportError:
    ua_parser = None  # type: ignore[assignment]

# Characters. User agents and hints are cut to this length before they are stored or parsed.
LONGEST = 512
# Characters. Longer text is not the name of a browser, a system or a model.
LONGEST_NAME = 40

# Programs, by the name at the beginning. Unlike crawlers, programs tell the truth.
PROGRAM = re.compile(
    r"(aiohttp|axios|curl|Go-http-client|HTTPie|Java|libwww-perl|node-fetch|okhttp|PostmanRuntime"
    r"|python-httpx|python-requests|Python-urllib|Wget)\b",
    re.IGNORECASE,
)
# A browser that nobody looks at.
HEADLESS = re.compile(r"\b(HeadlessChrome)/")
# Crawlers, which pretend to be a browser on a system. (Cubot is a maker of telephones.) Each word
# has one beginning only: with "\b", a name of many parts takes long.
CRAWLER = re.compile(r"(?<![\w-])([a-z][\w-]{0,30}(?:(?<!cu)bot|crawler|spider))\b", re.IGNORECASE)
# An app that is no browser says its own name first. Not at any length: a thief might say more than
# a name. Dalvik is what Android runs any app with.
APP = re.compile(r"(?!Mozilla/|Dalvik/)([a-z][\w .&'+-]{0,23})/v?(\d{1,5})", re.IGNORECASE)

# The first match counts. A browser that imitates another one stands before it.
BROWSERS = [
    (re.compile(pattern), name)
    for pattern, name in [
        (r"FBA[NV]/|FB_IAB/", "Facebook"),
        (r"\bInstagram (\d{1,5})?", "Instagram"),
        (r"\bEdg(?:e|A|iOS)?/(\d{1,5})?", "Edge"),
        (r"\bOP(?:R|T|X|iOS)/(\d{1,5})?|\bOpera\b", "Opera"),
        (r"\bSamsungBrowser/(\d{1,5})?", "Samsung Internet"),
        (r"\b(?:Firefox|FxiOS)/(\d{1,5})?", "Firefox"),
        (r"\b(?:Chrom(?:e|ium)|CriOS)/(\d{1,5})?", "Chrome"),
        (r"\bTrident/|\bMSIE ", "Internet Explorer"),
        (r"\bSafari/", "Safari"),
    ]
]
# Where the version is, if it does not follow the name.
BROWSER_VERSIONS = {
    "Facebook": re.compile(r"FBAV/(\d{1,5})"),
    "Internet Explorer": re.compile(r"\b(?:MSIE |rv:)(\d{1,5})"),
    "Safari": re.compile(r"\bVersion/(\d{1,5})"),
}
SYSTEMS = [
    (re.compile(pattern), name)
    for pattern, name in [
        (r"\bWindows\b", "Windows"),
        (r"\bAndroid\b", "Android"),
        (r"\biP(?:hone|ad|od)\b|\biOS\b|\biPadOS\b", "iOS"),
        (r"\bCrOS\b", "Chrome OS"),
        (r"\bMac OS X\b|\bMacintosh\b", "macOS"),
        (r"\bLinux\b", "Linux"),
    ]
]
DESKTOPS = {"Windows", "Chrome OS", "macOS", "Linux"}
# Versions of systems, except for those that browsers have frozen.
SYSTEM_VERSIONS = {
    "Windows": re.compile(r"\bWindows NT (6\.[123])\b"),
    "Android": re.compile(r"\bAndroid (?!10; K\))(\d{1,2})\b"),
    "iOS": re.compile(r"\b(?:iPhone OS|CPU OS|iOS|iPadOS)[ /](?!18_[67]\b)(\d{1,2})(?!\d)"),
    "macOS": re.compile(r"\bMac OS X (?!10_15_7)(10[._]\d{1,2}|1[1-9]|[2-9]\d)(?!\d)"),
}
WINDOWS = {"6.1": "7", "6.2": "8", "6.3": "8.1"}
# What comes after the version of Android: an old language, then the model.
MODEL = re.compile(r"\bAndroid [\d.]{1,8}; (?:[a-z]{2}-[a-zA-Z]{2}; )?([^;()]{1,80})")
NO_MODELS = {"K", "Mobile", "Tablet", "U", "wv"}
APPLE = re.compile(r"\b(?:iPhone|iPad)\b")

# Words for where a browser runs, which ua-parser adds to its name: "Chrome Mobile iOS".
PLACES = {"Mobile", "iOS", "WebView", "UI/WKWebView"}
# Names of ua-parser, and what we say instead.
ALIASES = {"Android": "", "IE": "Internet Explorer", "Mac OS X": "macOS"}

# What an app says of itself begins like this. See App.hints in visit/client.py.
APP_HINTS = 'App="'
# Client hints. A text in them, and one brand with its version in a list of brands.
TEXT = re.compile(r'"([^"\\]{1,40})"')
# The name of a brand is no longer than that of an app, and no address of a page either.
BRAND = re.compile(r'"([a-z][\w &\'+-]{0,23})"; ?v="(\d{1,5})', re.IGNORECASE | re.ASCII)
# A brand that browsers make up, so that nobody relies on a list: "Not;A=Brand".
GREASE = re.compile(r"\W*Not[\W_]+A[\W_]+Brand\W*")
# Brands, and what we say instead. "" says no more than the user agent does.
BRANDS = {
    "Android WebView": "",
    "Chromium": "",
    "Google Chrome": "Chrome",
    "Microsoft Edge": "Edge",
    "Microsoft Edge WebView2": "Edge",
}
PLATFORMS = {name: name for _pattern, name in SYSTEMS} | {"Chromium OS": "Chrome OS"}
# The browsers that we know by name.
NAMES = {name for _pattern, name in BROWSERS} | {"Brave", "DuckDuckGo", "HeadlessChrome", "Vivaldi"}
# The form factors that have a picture. A device may name several.
FORMS = {"Tablet": "tablet", "Mobile": "mobile", "Desktop": "desktop"}


@dataclass(frozen=True, slots=True)
class Device:
    """What a browser says about itself and its device. "" means that this is not known."""

    browser: str
    system: str
    # "desktop", "mobile", "tablet", "bot" (any program that is not a browser) or "other"
    kind: str
    browser_version: str = ""  # the first number of it, such as "142"
    system_version: str = ""  # as people know it: "11", "8.1"
    model: str = ""  # "Pixel 9", "iPhone"

    def is_like(self, other: "Device") -> bool:
        """Tell whether both have the same browser and the same system, of any version."""
        return (self.browser, self.system) == (other.browser, other.system)

    @property
    def details(self) -> str:
        """What is known beyond the name: "Chrome 142, Windows 11, Pixel 9". Or else ""."""
        parts = [
            f"{self.browser} {self.browser_version}" if self.browser_version else "",
            f"{self.system} {self.system_version}" if self.system_version else "",
            self.model,
        ]
        return ", ".join(part for part in parts if part)

    @property
    def known(self) -> Self:
        """
        The device without a name that is none of ours. Where a thief is told of, such a name could
        be what the thief has to say: a telephone number, a web site.
        """
        is_ours = self.browser in NAMES or PROGRAM.fullmatch(self.browser)
        return self if is_ours else replace(self, browser="", kind="other")

    def __str__(self) -> str:
        name = self.browser or self.system or gettext("Unknown device")
        if self.browser and self.system:
            name = gettext("%(browser)s on %(system)s") % {
                "browser": self.browser,
                "system": self.system,
            }
        return gettext("Program: %(name)s") % {"name": name} if self.kind == "bot" else name


def device_of(user_agent: str, hints: str = "") -> Device:
    """
    Return the device that a User-Agent header describes and, where the browser has sent any, its
    client hints, as ``Client.hints`` has them. No header takes long to parse.
    """
    return _device_of(user_agent[:LONGEST], hints[:LONGEST])


@lru_cache(maxsize=256)
def _device_of(user_agent: str, hints: str) -> Device:
    if hints.startswith(APP_HINTS):
        return _app(user_agent, hints)
    system = _first(SYSTEMS, user_agent)[0]
    if match := PROGRAM.match(user_agent) or HEADLESS.search(user_agent):
        return Device(match[1], system, "bot")
    if match := CRAWLER.search(user_agent):
        return Device(match[1], "", "bot")
    browser, version = _first(BROWSERS, user_agent)
    if browser in BROWSER_VERSIONS:
        version = _found(BROWSER_VERSIONS[browser], user_agent)
    if not browser and system and (match := APP.match(user_agent)):
        browser, version = match[1].strip(), match[2]
    elif ua_parser:
        # ua-parser knows more imitations than BROWSERS. Systems do not imitate each other.
        found = ua_parser.parse(user_agent)
        name = _name(found.user_agent)
        if found.user_agent and name and name != browser:
            browser, version = name, _number(found.user_agent.major)
        system = system or _name(found.os)
    device = Device(
        browser,
        system,
        _kind(user_agent, system),
        version,
        _system_version(user_agent, system),
        _model(user_agent, system),
    )
    # What sends hints and says that it is no Chromium is not what has sent them.
    return _with_hints(device, user_agent, hints) if hints and "Chrome/" in user_agent else device


def _first(names: list[tuple[re.Pattern[str], str]], user_agent: str) -> tuple[str, str]:
    """Return the first of the names that a user agent has, and the version beside it."""
    for pattern, name in names:
        if match := pattern.search(user_agent):
            return name, (match[1] or "") if pattern.groups else ""
    return "", ""


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""


def _name(found: "ua_parser.UserAgent | ua_parser.OS | None") -> str:
    if found is None or len(found.family) > LONGEST_NAME:
        return ""
    name = " ".join(word for word in found.family.split() if word not in PLACES)
    return ALIASES.get(name, name)


def _number(version: str | None) -> str:
    return version if version and version.isdecimal() and len(version) <= 5 else ""


def _kind(user_agent: str, system: str) -> str:
    # On Android, only telephones say "Mobile", and only in a browser.
    if "iPad" in user_agent:
        return "tablet"
    if system == "Android" and "Mobile" not in user_agent and user_agent.startswith("Mozilla/"):
        return "tablet"
    if "Mobile" in user_agent or system in ("Android", "iOS"):
        return "mobile"
    return "desktop" if system in DESKTOPS else "other"


def _system_version(user_agent: str, system: str) -> str:
    if system not in SYSTEM_VERSIONS:
        return ""
    version = _found(SYSTEM_VERSIONS[system], user_agent)
    return WINDOWS[version] if system == "Windows" and version else version.replace("_", ".")


def _model(user_agent: str, system: str) -> str:
    if system == "iOS":
        return match[0] if (match := APPLE.search(user_agent)) else ""
    model = _found(MODEL, user_agent).partition(" Build/")[0].strip()
    is_one = len(model) <= LONGEST_NAME and model not in NO_MODELS and not model.startswith("rv:")
    return model if is_one else ""


def _with_hints(device: Device, user_agent: str, hints: str) -> Device:
    """Return the device with what its client hints know better. See visit/client.py."""
    known = _parts(hints)
    brand, version = _brand(known.get("Full-Version-List") or known.get("UA", ""))
    # User agents name what pretends to be Chrome, an app say. Brands only name another Chrome.
    if brand and device.browser in ("Chrome", brand):
        device = replace(device, browser=brand, browser_version=version)
    system = PLATFORMS.get(_text(known.get("Platform", "")), "")
    if system and system != device.system:  # a page was asked for as desktops see it
        kind = _kind(user_agent, system)
        device = replace(device, system=system, kind=kind, system_version="", model="")
    return replace(
        device,
        kind=_form(known, device.kind),
        system_version=_hinted_version(device, _text(known.get("Platform-Version", ""))),
        model=_text(known.get("Model", "")) or device.model,
    )


def _app(user_agent: str, hints: str) -> Device:
    """Return the device of an app, as the app has described it when its user signed in."""
    known = {name: _text(value) for name, value in _parts(hints).items()}
    system = known.get("Platform") or _first(SYSTEMS, user_agent)[0]
    return Device(
        known["App"],
        system,
        _kind(user_agent, system),
        known.get("App-Version", ""),
        known.get("Platform-Version", ""),
        known.get("Model", ""),
    )


def _parts(hints: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in hints.split(" | "))


def _text(value: str) -> str:
    match = TEXT.fullmatch(value)
    return match[1].strip() if match else ""


def _brand(brands: str) -> tuple[str, str]:
    """Return the name and the version in a list of brands that says the most."""
    for name, version in BRAND.findall(brands):
        if not GREASE.fullmatch(name) and (known := BRANDS.get(name, name)):
            return known, version
    return "", ""


def _hinted_version(device: Device, version: str) -> str:
    major = _number(version.partition(".")[0])
    if not major or device.system not in ("Windows", "macOS", "Android"):
        return device.system_version  # those of Linux and Chrome OS say nothing to people
    if device.system != "Windows":
        return major
    # https://learn.microsoft.com/en-us/microsoft-edge/web-platform/how-to-detect-win11
    if int(major) >= 13:
        return "11"
    return "10" if int(major) else device.system_version


def _form(known: dict[str, str], kind: str) -> str:
    forms: Iterable[str] = TEXT.findall(known.get("Form-Factors", ""))
    named = [FORMS[form] for form in FORMS if form in forms]
    if named:
        return named[0]
    return "mobile" if known.get("Mobile") == "?1" else kind

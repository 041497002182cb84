"""
From a user agent to "Firefox on Linux": what a browser says about itself, without versions.
Browsers have frozen or dropped most versions, and people recognise their devices without them.

The parser in this module is small. If ua-parser is installed (extra ``devices``), that package
names the browsers that are too rare to be listed here.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from django.utils.translation import gettext

try:
    import ua_parser
except ImportError:
    ua_parser = None  # type: ignore[assignment]

# Characters. Headers are cut to this length before they are stored or parsed.
LONGEST = 512
# Characters. Longer text is not the name of a browser or a system.
LONGEST_NAME = 40

# Programs, by the name at the beginning. Unlike crawlers, programs tell the truth.
PROGRAM = re.compile(
    r"(?:Mozilla/5\.0 .* )?(HeadlessChrome)/"
    r"|(aiohttp|axios|curl|Go-http-client|HTTPie|Java|libwww-perl|node-fetch|okhttp|PostmanRuntime"
    r"|python-httpx|python-requests|Python-urllib|Wget)\b",
    re.IGNORECASE,
)
# Crawlers, which pretend to be a browser on a system. (Cubot is a maker of telephones.)
CRAWLER = re.compile(r"\b([a-z][\w-]{0,30}(?:(?<!cu)bot|crawler|spider))\b", re.IGNORECASE)

# The first match counts. A browser that imitates another one stands before it.
BROWSERS = [
    (re.compile(pattern), name)
    for pattern, name in [
        (r"FBA[NV]/|FB_IAB/", "Facebook"),
        (r"\bInstagram ", "Instagram"),
        (r"\bEdg(?:e|A|iOS)?/", "Edge"),
        (r"\bOP(?:R|T|X|iOS)/|\bOpera\b", "Opera"),
        (r"\bSamsungBrowser/", "Samsung Internet"),
        (r"\bFirefox/|\bFxiOS/", "Firefox"),
        (r"\bChrom(?:e|ium)/|\bCriOS/", "Chrome"),
        (r"\bTrident/|\bMSIE ", "Internet Explorer"),
        (r"\bSafari/", "Safari"),
    ]
]
SYSTEMS = [
    (re.compile(pattern), name)
    for pattern, name in [
        (r"\bWindows\b", "Windows"),
        (r"\bAndroid\b", "Android"),
        (r"\biP(?:hone|ad|od)\b", "iOS"),
        (r"\bCrOS\b", "Chrome OS"),
        (r"\bMac OS X\b|\bMacintosh\b", "macOS"),
        (r"\bLinux\b", "Linux"),
    ]
]
DESKTOPS = {"Windows", "Chrome OS", "macOS", "Linux"}

# Words for where a browser runs, which ua-parser adds to its name: "Chrome Mobile iOS".
PLACES = {"Mobile", "iOS", "WebView", "UI/WKWebView"}
# Names of ua-parser, and what we say instead.
ALIASES = {"Android": "", "IE": "Internet Explorer"}


@dataclass(frozen=True, slots=True)
class Device:
    """What a user agent says about a device. "" means that this is not known."""

    browser: str
    system: str
    # "desktop", "mobile", "tablet", "bot" (any program that is not a browser) or "other"
    kind: str

    def is_like(self, other: "Device") -> bool:
        """Tell whether both have the same browser and the same system."""
        return (self.browser, self.system) == (other.browser, other.system)

    def __str__(self) -> str:
        if self.browser and self.system:
            return gettext("%(browser)s on %(system)s") % {
                "browser": self.browser,
                "system": self.system,
            }
        return self.browser or self.system or gettext("Unknown device")


def device_of(user_agent: str) -> Device:
    """Return the device that a User-Agent header describes. No header takes long to parse."""
    return _device_of(user_agent[:LONGEST])


@lru_cache(maxsize=256)
def _device_of(user_agent: str) -> Device:
    system = _first(SYSTEMS, user_agent)
    if match := PROGRAM.match(user_agent):
        return Device(match[1] or match[2], system, "bot")
    if match := CRAWLER.search(user_agent):
        return Device(match[1], "", "bot")
    browser = _first(BROWSERS, user_agent)
    if ua_parser:
        # ua-parser knows more imitations than BROWSERS. Systems do not imitate each other.
        found = ua_parser.parse(user_agent)
        browser = _name(found.user_agent) or browser
        system = system or _name(found.os)
    return Device(browser, system, _kind(user_agent, system))


def _first(names: list[tuple[re.Pattern[str], str]], user_agent: str) -> str:
    return next((name for pattern, name in names if pattern.search(user_agent)), "")


def _name(found: "ua_parser.UserAgent | ua_parser.OS | None") -> str:
    if found is None or len(found.family) > LONGEST_NAME:
        return ""
    name = " ".join(word for word in found.family.split() if word not in PLACES)
    return ALIASES.get(name, name)


def _kind(user_agent: str, system: str) -> str:
    # On Android, only telephones say "Mobile".
    if "iPad" in user_agent or (system == "Android" and "Mobile" not in user_agent):
        return "tablet"
    if "Mobile" in user_agent:
        return "mobile"
    return "desktop" if system in DESKTOPS else "other"

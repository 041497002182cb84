"""The pages of the kit: their URLs, their text, and how a person uses their forms."""

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.contrib.messages import get_messages
from django.contrib.staticfiles import finders
from django.test import Client

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse as Response

LIST = "/account/sessions/"
OTHERS = "/account/sessions/others/end/"
PROVE = "/account/sessions/reauthenticate/"
LIMIT = "/account/sessions/limit/"


# Forms.


def token(page: "Response") -> dict[str, str]:
    """
    Return the field with the CSRF token in the forms of a page. The form in the header of the
    admin's pages does not count.
    """
    content = page.text.partition('id="content"')[2] or page.text
    (value,) = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', content))
    return {"csrfmiddlewaretoken": value}


def press(device: Client, url: str, **fields: Any) -> "Response":
    """Press the button on a page: post its form, with the page's CSRF token."""
    return device.post(url, {**token(device.get(url)), **fields})


def fields_of(page: "Response", button: str = "") -> dict[str, str]:
    """Return the hidden fields of the form with this button, by default of the first form."""
    (form, *_others) = [form for form in page.text.split("<form")[1:] if button in form]
    inputs = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
    return {name: unescape(value) for name, value in inputs}


# Text.


def words(page: "Response | str", between: str = "") -> str:
    """Return the text of a page, with ``between`` in place of every tag."""
    html = page if isinstance(page, str) else page.text
    body = html.partition("<body")[2].partition(">")[2]
    return " ".join(re.sub(r"<[^>]*>", between, body).split())


def said(response: "Response") -> list[str]:
    """Return the messages that an answer leaves for the next page."""
    return [str(message) for message in get_messages(response.wsgi_request)]


class Strict(HTMLParser):
    """Reads a page as a browser under ``default-src 'none'; style-src 'self'`` would."""

    VOID = {"br", "circle", "hr", "img", "input", "link", "meta", "path", "rect"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _value in attrs]
        assert len(names) == len(set(names)), (tag, names)
        assert tag not in {"script", "style", "iframe", "img", "object", "base"}
        assert not [name for name in names if name == "style" or name.startswith("on")]
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


# The style sheet.


def style_sheet() -> str:
    """Return the style sheet of the pages, without its comments."""
    path = finders.find("django_sessionkit/sessions.css")
    assert path
    return re.sub(r"/\*.*?\*/", "", Path(path).read_text(), flags=re.DOTALL)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, as WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(d * 2 for d in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)

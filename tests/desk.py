"""What staff do at their desks: how a test uses the admin's pages, and what these say."""

import uuid
from typing import TYPE_CHECKING, Any

from django.contrib.admin.models import LogEntry
from django.test import Client

from tests.pages import fields_of, press, token, words
from tests.people import handle

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse as Response

CHANGELIST = "/admin/django_sessionkit/usersession/"
END_SHOWN, SWITCH = f"{CHANGELIST}end/", f"{CHANGELIST}switch/"
ENDINGS = f"{CHANGELIST}endings/"
WHY = "ticket 4711"
FAREWELL = "You were signed out by the staff of this site."
OWN_FAREWELL = "You have ended the session that you were using. Sign in again."
SAME_PASSWORD = "The password was not changed: a thief may sign in again."
SAME_PASSWORDS = "The passwords were not changed: a thief may sign in again."


def page_of(device: Client) -> str:
    return f"{CHANGELIST}{handle(device)}/change/"


def delete_url(device: Client) -> str:
    return f"{CHANGELIST}{handle(device)}/delete/"


def end(desk: Client, url: str, **fields: Any) -> "Response":
    """End the session that this page asks about."""
    return press(desk, url, **{"note": WHY, **fields})


def choose(desk: Client, action: str, *rows: Any, url: str = CHANGELIST, **fields: Any) -> Any:
    """Tick rows of a list, and let the action have them. Return the page that it asks on."""
    ticked = [str(getattr(row, "pk", row)) for row in rows]
    return press(desk, url, action=action, _selected_action=ticked, **fields)


def answer(desk: Client, asked: "Response", url: str = "", /, **fields: Any) -> "Response":
    """Fill the form of a question in, and send it; a box that is ticked stays so."""
    rows = asked.text.split('name="_selected_action" value="')[1:]
    answers = {
        **fields_of(asked, 'name="note"'),
        "_selected_action": [row.partition('"')[0] for row in rows],
        "note": WHY,
        **({"spares_own": "on"} if "Leave my own session out" in asked.text else {}),
        **fields,
    }
    answers = {name: value for name, value in answers.items() if value not in (None, [])}
    where = url or asked.request["PATH_INFO"]
    query = "" if url else asked.request.get("QUERY_STRING", "")
    return desk.post(f"{where}?{query}" if query else where, answers)


def post(device: Client, url: str, **fields: Any) -> Any:
    """Post to a page that has no form, or none for this device to see."""
    return device.post(url, {**token(device.get("/login/")), "post": "yes", "note": WHY, **fields})


def as_read(page: Any) -> str:
    """Return the text of a page; what stands in two cells are two words."""
    return words(page, " ")


def rows_on(page: Any) -> list[uuid.UUID]:
    """Return the handles on a page of the list."""
    assert page.status_code == 200
    return [session.pk for session in page.context["cl"].result_list]


def unescape(url: str) -> str:
    return url.replace("&amp;", "&")


def messages_of(page: Any) -> list[tuple[str, str]]:
    """Return the messages on a page, without the links in them."""
    return [(message.level_tag, words(f"<body>{message}")) for message in page.context["messages"]]


def log_entries() -> list[tuple[str, str, str]]:
    return [
        (str(entry.user), str(entry.object_repr), entry.get_change_message())
        for entry in LogEntry.objects.order_by("pk")
    ]

"""What a visitor reads whose session has ended, by the reason."""

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from django.contrib import messages
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from django_sessionkit import registry
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.visit.times import ago

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

FAREWELLS: dict[str, "_StrPromise"] = {
    EndReason.LOGOUT: gettext_lazy("You have signed out."),
    EndReason.REVOKED: gettext_lazy(
        "You were signed out from another device. If that was not you, sign in and change your"
        " password."
    ),
    EndReason.REVOKED_BY_STAFF: gettext_lazy("You were signed out by the staff of this site."),
    EndReason.IDLE: gettext_lazy("You were signed out because you were inactive for a while."),
    EndReason.EXPIRED: gettext_lazy("Your sign-in has expired."),
    EndReason.LIMIT: gettext_lazy(
        "You were signed out here to make room for another device. If you did not sign in"
        " elsewhere, change your password."
    ),
    EndReason.PASSWORD_CHANGE: gettext_lazy(
        "You were signed out because your password was changed. If that was not you, reset your"
        " password."
    ),
    EndReason.ACCOUNT_DISABLED: gettext_lazy(
        "You were signed out because your account was disabled."
    ),
    EndReason.REPLACED: gettext_lazy("You were signed out because another account signed in here."),
    EndReason.LOST: gettext_lazy("You were signed out."),
    EndReason.REUSED: gettext_lazy(
        "You were signed out because an old copy of your sign-in was used. If that was not you,"
        " sign in and change your password."
    ),
    EndReason.MOVED: gettext_lazy(
        "You were signed out because your browser or network has changed. If that was not you,"
        " sign in and change your password."
    ),
    EndReason.PRIVILEGE_CHANGE: gettext_lazy(
        "You were signed out because what you may do here was changed."
    ),
    EndReason.PARENT: gettext_lazy(
        "You were signed out because the app that opened this page was signed out."
    ),
}
# The same, where it is known on which device of theirs somebody has done that, and when.
FAREWELLS_FROM: dict[str, "_StrPromise"] = {
    EndReason.REVOKED: gettext_lazy(
        "You were signed out from another device (%(device)s, %(time)s). If that was not you, sign"
        " in and change your password."
    ),
    EndReason.LIMIT: gettext_lazy(
        "You were signed out here to make room for another device (%(device)s, %(time)s). If you"
        " did not sign in there, change your password."
    ),
    EndReason.PASSWORD_CHANGE: gettext_lazy(
        "You were signed out because your password was changed (%(device)s, %(time)s). If that was"
        " not you, reset your password."
    ),
}
# The reasons that need nobody's attention: what the visitor has done, or left undone. All others
# are warnings.
EXPECTED = {EndReason.LOGOUT, EndReason.REPLACED, EndReason.IDLE, EndReason.EXPIRED}


def farewell_of(request: HttpRequest, row: UserSession) -> str:
    """
    Return what the visitor reads whose session had this row: with the device on which its user has
    ended it, if that is known. Other people's devices, such as those of staff, are not named.
    """
    session: Any = request.session
    text, other = FAREWELLS_FROM.get(row.end_reason), None
    if text:
        with suppress(StoreUnavailable):
            other = session.call(registry.row_of, row.ended_from)
    if text is None or other is None or other.user_id != row.user_id or other.support:
        return str(FAREWELLS.get(row.end_reason, FAREWELLS[EndReason.LOST]))
    at = cast("datetime", row.ended_at)
    return text % {"device": other.name, "time": ago(at)}


def level_of(reason: str) -> int:
    return messages.INFO if reason in EXPECTED else messages.WARNING

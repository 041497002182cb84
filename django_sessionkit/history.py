"""What a user is told of their sessions that have ended: who ended them, and why."""

from typing import Any

from django.db.models import OuterRef, Subquery
from django.utils.translation import gettext, gettext_lazy

from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet

# REVOKED is told by who it was.
WHY = {
    EndReason.LOGOUT: gettext_lazy("You signed out there."),
    EndReason.REVOKED_BY_STAFF: gettext_lazy("Signed out by support."),
    EndReason.IDLE: gettext_lazy("Signed out because it was not used for too long."),
    EndReason.EXPIRED: gettext_lazy("Signed out because the time for this sign-in was over."),
    EndReason.LIMIT: gettext_lazy("Signed out to make room for another device."),
    EndReason.PASSWORD_CHANGE: gettext_lazy("Signed out because the password was changed."),
    EndReason.ACCOUNT_DISABLED: gettext_lazy("Signed out because the account was disabled."),
    EndReason.REPLACED: gettext_lazy("Somebody signed in there again, or to another account."),
    EndReason.LOST: gettext_lazy("Signed out by a fault of this site."),
    EndReason.REUSED: gettext_lazy(
        "Signed out to protect you: somebody used an old copy of this sign-in."
    ),
    EndReason.MOVED: gettext_lazy(
        "Signed out to protect you: it was used from another browser or network."
    ),
    EndReason.PRIVILEGE_CHANGE: gettext_lazy("Signed out because your permissions were changed."),
    EndReason.PARENT: gettext_lazy("Signed out with the app that had opened it."),
}

# What is asked of the session in which another one was ended.
ENDER = ("label", "user_agent", "client_hints", "support")


def with_enders(rows: UserSessionQuerySet) -> UserSessionQuerySet:
    """Return these rows with what how_it_ended() needs of the sessions in which they were ended."""
    ender = UserSession.objects.filter(pk=OuterRef("ended_from"), user=OuterRef("user"))
    columns = {f"ender_{name}": Subquery(ender.values(name)[:1]) for name in ENDER}
    return rows.annotate(**columns)


def how_it_ended(session: Any) -> str:
    """Return, in a sentence, who ended this session and why. The row is of with_enders()."""
    if session.reported_at:
        return gettext("You did not recognise it.")
    if session.end_reason != EndReason.REVOKED:
        # Code of the site may have given none, and a newer version one of its own.
        return str(WHY.get(session.end_reason) or gettext("Signed out by this site."))
    if session.ended_by_id not in (None, session.user_id):
        return gettext("Signed out by support.")
    if session.ender_user_agent is not None:
        ender = UserSession(**{name: getattr(session, f"ender_{name}") for name in ENDER})
        if ender.support:
            return gettext("Signed out by support.")
        return gettext("Signed out from %(device)s.") % {"device": ender.name}
    if session.ended_by_id is None:
        return gettext("Signed out by this site.")
    return gettext("Signed out from another device.")

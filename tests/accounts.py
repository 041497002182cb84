"""Changes of accounts, and what becomes of their sessions."""

from django_sessionkit.models import UserSession
from tests.pages import LIST

CHANGED = "You were signed out because your password was changed"
DISABLED = "You were signed out because your account was disabled."


def changed(user):
    """Give a user another password."""
    user.set_password("better")
    user.save()


def disabled(user):
    """Disable the account of a user."""
    user.is_active = False
    user.save()


def rows(*handles):
    """Return a set of (reason, by whom, whether ended), of the rows with these handles."""
    found = UserSession.objects.filter(pk__in=handles)
    return {(row.end_reason, row.ended_by, bool(row.ended_at)) for row in found}


def listed(browser):
    """Return the handles of the sessions that a browser sees on the list."""
    return [row.pk for row in browser.get(LIST).context["object_list"]]


def alive():
    """Return the handles of the sessions that are alive."""
    return {row.pk for row in UserSession.objects.alive()}

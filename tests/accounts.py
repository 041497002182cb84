"""What happens to accounts, and what becomes of their sessions."""

from django_sessionkit.models import UserSession
from tests.pages import LIST

CHANGED = "You were signed out because your password was changed."
DISABLED = "You were signed out because your account was disabled."


def changed(user):
    """Give somebody another password."""
    user.set_password("better")
    user.save()


def disabled(user):
    """Disable the account of somebody."""
    user.is_active = False
    user.save()


def rows(*handles):
    """Return why and by whom sessions were ended, and whether they were: all that there is."""
    found = UserSession.objects.filter(pk__in=handles)
    return {(row.end_reason, row.ended_by, bool(row.ended_at)) for row in found}


def listed(browser):
    """Return the handles of the sessions on the list that a browser is shown."""
    return [row.pk for row in browser.get(LIST).context["object_list"]]


def alive():
    """Return the handles of the sessions that are alive."""
    return {row.pk for row in UserSession.objects.alive()}

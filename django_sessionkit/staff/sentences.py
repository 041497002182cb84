"""
What staff read before and after sessions end: how many, whose, and what that does not do.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.contrib.auth import get_user_model, logout
from django.http import HttpRequest
from django.urls import reverse
from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext, ngettext

from django_sessionkit.conf import conf
from django_sessionkit.models import UserSession
from django_sessionkit.staff.permissions import may_view_users

# So many people are named in a message or a question.
NAMED = 20


# Before.


def counted(number: int, is_more: bool = False) -> str:
    text = number_format(number, force_grouping=True)
    return gettext("more than %(number)s") % {"number": text} if is_more else text


def sessions(number: int, is_more: bool = False) -> str:
    text = ngettext("%(count)s session", "%(count)s sessions", number)
    return text % {"count": counted(number, is_more)}


def question(number: int, people: int, is_more: bool = False) -> str:
    """Return the question whether so many sessions of so many people are to end."""
    if not (number or is_more):
        return gettext("There is no session to end")
    text = ngettext("%(count)s person", "%(count)s people", people)
    return gettext("End %(sessions)s of %(people)s?") % {
        "sessions": sessions(number, is_more),
        # Those that were not counted have more users, but for one who has all of them.
        "people": text % {"count": counted(people, is_more and people != 1)},
    }


def ended_already(number: int, selected: int) -> str:
    text = ngettext(
        "%(count)d of the %(selected)d selected has ended already.",
        "%(count)d of the %(selected)d selected have ended already.",
        number,
    )
    return text % {"count": number, "selected": selected}


def superusers_left_out(number: int) -> str:
    text = ngettext(
        "%(count)s session of a superuser is left out, because you are none.",
        "%(count)s sessions of superusers are left out, because you are none.",
        number,
    )
    return text % {"count": counted(number)}


def one_is_own() -> str:
    return gettext("One is the session that you are using now.")


def names_of(people: Iterable[Any], number: int | None = None) -> str:
    """
    Return the names of people, which may be links: of NAMED at most, and how many others there are.
    ``number`` tells how many there are in all, if not all are given.
    """
    known = list(people)
    named = known[:NAMED]
    names = format_html_join(", ", "{}", ((each,) for each in named))
    others = (len(known) if number is None else number) - len(named)
    if not others:
        return names
    text = ngettext("{names} and {count} other", "{names} and {count} others", others)
    return format_html(text, names=names, count=counted(others))


def names_by_key(request: HttpRequest, keys: Sequence[str], number: int = NAMED) -> str:
    """
    Return the names of the users with these keys, of so many at most. Staff who may not see users
    could try keys, and learn all names: they read the keys.
    """
    names: Sequence[Any] = keys[:number]
    if may_view_users(request):
        users = get_user_model()._base_manager.filter(pk__in=names)
        known = {str(user.pk): user for user in users}
        names = [known.get(key, key) for key in names]
    return names_of(names, len(keys))


# After.


def say_ended(request: HttpRequest, site: AdminSite, rows: Collection[UserSession]) -> None:
    """Say which sessions have ended."""
    if not rows:
        messages.info(request, gettext("There was no active session to end."))
        return
    users = {row.user_id: row.user for row in rows}
    people = names_of(link_to(request, site, user) for user in users.values())
    if len(rows) == 1:
        (row,) = rows
        text = gettext("The session of {people} on {device} was ended.")
        what = format_html(text, people=people, device=row.device)
    else:
        text = ngettext(
            "{sessions} of {people} was ended.", "{sessions} of {people} were ended.", len(rows)
        )
        what = format_html(text, sessions=sessions(len(rows)), people=people)
    messages.success(request, format_html("{} {}", what, password_is_the_same(len(users))))


def link_to(request: HttpRequest, site: AdminSite, user: Any) -> str:
    """Return a link to the page of a user, or the name where this request has no such page."""
    model = get_user_model()
    if not site.is_registered(model):
        return str(user)
    if not site.get_model_admin(model).has_view_or_change_permission(request, user):
        return str(user)
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_change"
    url = reverse(name, args=[user.pk], current_app=site.name)
    return format_html('<a href="{}">{}</a>', url, user)


def password_is_the_same(people: int) -> str:
    """Say what staff may overlook: whoever knows a password can sign in again."""
    return ngettext(
        "The password was not changed: a thief may sign in again.",
        "The passwords were not changed: a thief may sign in again.",
        people,
    )


def say_store_is_down(request: HttpRequest) -> None:
    seconds = conf.SESSIONKIT_TOUCH_INTERVAL
    text = ngettext(
        "The session store did not answer. The ended sessions stop working within"
        " %(seconds)d second.",
        "The session store did not answer. The ended sessions stop working within"
        " %(seconds)d seconds.",
        seconds,
    )
    messages.warning(request, text % {"seconds": seconds})


def sign_out(request: HttpRequest, others: int = 0) -> None:
    """
    Sign out staff who have ended the session that they use, and say so on the sign-in page. Whoever
    reads that page need not be staff: it names nobody.
    """
    logout(request)
    messages.success(
        request, gettext("You have ended the session that you were using. Sign in again.")
    )
    if others:
        text = ngettext(
            "%(count)d other session was ended.", "%(count)d other sessions were ended.", others
        )
        messages.success(request, text % {"count": others})

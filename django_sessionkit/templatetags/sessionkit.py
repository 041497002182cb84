"""
What a site's own pages say of the sessions of their reader: ``{% load sessionkit %}``. Visitors who
are not signed in cost no query.
"""

import json
import uuid
from collections.abc import Callable
from typing import Any

from django import template
from django.contrib.auth import SESSION_KEY
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Subquery
from django.http import HttpRequest
from django.template import Context
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import get_language

from django_sessionkit.grouping import NEWEST, count_devices
from django_sessionkit.models import UserSession, UserSessionQuerySet
from django_sessionkit.status import status_of

register = template.Library()


@register.simple_tag(takes_context=True)
def current_session(context: Context) -> UserSession | None:
    """
    Return the row of the reader's session: ``name`` is that of the device, ``started_at`` when they
    signed in. Return None for a visitor.
    """
    found: UserSession | None = _once(context, lambda handle: _own(handle).first(), "current")
    return found


@register.simple_tag(takes_context=True)
def device_count(context: Context) -> int:
    """
    Return how many devices are signed in to the reader's account, this one included, or 0 for a
    visitor. Sessions in one browser are one device. Of a reader with more sessions than NEWEST,
    only the devices of the newest are counted.
    """

    def count(own: uuid.UUID) -> int:
        return count_devices(_of_the_same_user(own).active(), at_most=NEWEST)

    return _once(context, count, "count") or 0


@register.simple_tag(takes_context=True)
def new_sign_in(context: Context) -> UserSession | None:
    """
    Return the last sign-in to the reader's account that was from a new device or an unusual place,
    and that came after the last activity of the reader's session before this page. Such a sign-in
    may have ended already. Return None if there was none, and for a visitor.
    """
    found: UserSession | None = _once(context, _new, "new")
    return found


@register.inclusion_tag("django_sessionkit/session_script.html", takes_context=True)
def session_script(context: Context, warn: int = 120, heartbeat: bool = True) -> dict[str, Any]:
    """
    Include the script that warns so many seconds before the session runs out, and tells when it has
    ended. With ``heartbeat``, what the reader does on the page keeps the session. A visitor gets no
    script.
    """
    request = _request(context)
    session = getattr(request, "session", {})
    if SESSION_KEY not in session:
        return {}
    language = get_language()
    url = reverse("django_sessionkit:session_status")
    # django-csp has it on the request. Reading it there announces it.
    nonce = context.get("csp_nonce", getattr(request, "csp_nonce", None))
    return {
        "status": json.dumps(status_of(session)),
        "url": f"{url}?{urlencode({'language': language})}" if language else url,
        "language": language or "",
        "warn": warn,
        "heartbeat": heartbeat,
        "has_nonce": nonce is not None,  # Django's is false until it is used
        "nonce": nonce,
    }


def _request(context: Context) -> HttpRequest:
    request = context.get("request")
    if request is None:
        raise ImproperlyConfigured(
            "The tags of {% load sessionkit %} need the request. Render the template with it, as"
            " render(request, …) does, and add 'django.template.context_processors.request' to the"
            " context_processors in TEMPLATES."
        )
    found: HttpRequest = request
    return found


def _once(context: Context, find: Callable[[uuid.UUID], Any], name: str) -> Any:
    """Return what a tag has found for this request, which every page asks for once at most."""
    request: Any = _request(context)
    session: Any = getattr(request, "session", None)
    handle: uuid.UUID | None = getattr(session, "handle", None)
    if handle is None:
        return None
    found = vars(request).setdefault("_sessionkit_tags", {})
    if (name, handle) not in found:
        found[name, handle] = find(handle)
    return found[name, handle]


def _own(handle: uuid.UUID) -> UserSessionQuerySet:
    return UserSession.objects.primary().filter(pk=handle)


def _of_the_same_user(handle: uuid.UUID) -> UserSessionQuerySet:
    rows = UserSession.objects.primary()
    # Not user__in: the rows come in the order of an index by one user, not by several.
    return rows.filter(user=Subquery(_own(handle).values("user")[:1]))


def _new(handle: uuid.UUID) -> UserSession | None:
    before = Subquery(_own(handle).values("last_seen_at"))
    others = _of_the_same_user(handle).exclude(pk=handle).filter(support=False)
    return others.exclude(novelty="").filter(started_at__gt=before).first()  # the newest

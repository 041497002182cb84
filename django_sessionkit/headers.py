"""
Sessions of clients without cookies: apps on telephones, and programs. Such a client signs in, keeps
the session key that it is given, and sends the key with every request:

    Authorization: Bearer sk_…

Its session is in the same store and has the same kind of row as that of a browser, under the same
policy. Where the key changes, the answer has the new key, in the header ``Session-Key``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth import alogin, login
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from django_sessionkit.conf import conf
from django_sessionkit.forms import Hidden, LabelForm
from django_sessionkit.visit import bearer, browsers
from django_sessionkit.visit.client import UNKNOWN_APP, App, Visit


def app_of(
    name: str = "",
    version: str = "",
    system: str = "",
    system_version: str = "",
    model: str = "",
    label: str = "",
    device: str = "",
    takes_new_keys: bool = True,
) -> App:
    """
    Return what an app says of itself at the sign-in, for sign_in(). ``name`` and ``version`` are
    those of the app ("Shop", "2.3"), ``system`` and ``system_version`` those of the device
    ("Android", "14"), ``model`` is the device ("Pixel 8"), and ``label`` what its user calls the
    device ("Anna's telephone"). What is longer than 40 characters is cut; a label may have 64.

    ``device`` is what device_name() has returned after an earlier sign-in, so that the user's page
    has one device and not two. With ``takes_new_keys`` False, the key of the session never changes
    by itself, whatever Policy.renew_after says.
    """
    form = LabelForm({"label": label})
    return App(
        name=name,
        version=version,
        system=system,
        system_version=system_version,
        model=model,
        label=form.cleaned_data["label"] if form.is_valid() else "",
        device=browsers.named_by(device) if conf.SESSIONKIT_DEVICE_COOKIE else None,
        takes_new_keys=takes_new_keys,
    )


@sensitive_variables()
def sign_in(
    request: HttpRequest,
    user: Any,  # of whatever model the site has
    backend: str | None = None,
    app: App = UNKNOWN_APP,
) -> str:
    """
    Sign a user in who has just proved who they are, and return the session key for the app, with
    its prefix. ``backend`` is the dotted path of an authentication backend, as for Django's
    login(): authenticate() has set it on the user that it returns.

    The cookies of the request count for nothing, and the answer sets no cookie for the session.

    Raises ImproperlyConfigured without our middleware and engine, StoreUnavailable, and, for the
    middleware to answer, UpdateError if the policy of the user refuses the sign-in. With
    on_limit="ask", there is a key, and the session is locked until its user has made room:
    ``request.session.waits_for_room`` is the limit then.
    """
    with _without_cookies(request, app):
        login(request, user, backend)
        request.session.save()
    return _given(request.session)


@sensitive_variables()
async def asign_in(
    request: HttpRequest,
    user: Any,
    backend: str | None = None,
    app: App = UNKNOWN_APP,
) -> str:
    """The async form of sign_in()."""
    with _without_cookies(request, app):
        await alogin(request, user, backend)
        await request.session.asave()
    return _given(request.session)


def device_name(request: HttpRequest) -> str:
    """
    Return the name of the device that has just signed in, for the app to keep, and to say again
    when somebody signs in with it the next time: see app_of(). It is random, signed, and proves
    nothing. Return "" where SESSIONKIT_DEVICE_COOKIE is off.
    """
    visit: Visit = request.sessionkit  # type: ignore[attr-defined]
    return browsers.signed_name(visit.browser) if visit.browser else ""


@contextmanager
def _without_cookies(request: Any, app: App) -> Iterator[None]:
    """Give the request a session whose key travels in headers, to be signed in."""
    visit: Visit | None = getattr(request, "sessionkit", None)
    if visit is None:
        raise ImproperlyConfigured(
            "A sign-in without cookies needs django_sessionkit.middleware.SessionMiddleware in"
            " MIDDLEWARE, in the place of Django's, and an engine of this package."
        )
    if visit.app is None:  # otherwise the session with that key is signed in again
        request.session = type(request.session)()
        request.session.join(visit)
    visit.app = app
    bearer.spare_csrf(request)
    try:
        yield
    finally:
        # login() has told the CSRF middleware to set a cookie.
        request.META.pop("CSRF_COOKIE_NEEDS_UPDATE", None)


def _given(session: Any) -> str:
    """Return the key of the session, and know that its client has it."""
    session.note_key_given()
    session.modified = False  # it is stored: the middleware need not save it once more
    return Hidden(bearer.text_of(session))  # views keep it in a variable: error reports show those

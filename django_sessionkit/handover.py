"""
The hand-over: an app opens a web view in which its user is signed in already. The app asks the site
for a code, by its session, and has the web view load the URL with the code. The web view gets a
session of its own, in a cookie, and is redirected to the page that the app wants to show.

The new session is on the same device, and ends with that of the app, its parent.
"""

from typing import Any, NamedTuple, cast

from django.conf import settings
from django.contrib.auth import SESSION_KEY, login, logout
from django.contrib.auth.decorators import login_not_required
from django.contrib.sessions.backends.base import SessionBase
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_variables
from django.views.generic import TemplateView

from django_sessionkit.accounts import has_password_of, is_disabled, user_in, user_of
from django_sessionkit.decorators import GUARDS
from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet
from django_sessionkit.visit.client import Parent, is_of_app
from django_sessionkit.visit.redirects import local_url, sign_in_url


@sensitive_variables()
def issue(request: HttpRequest | SessionBase, next: str = "") -> str:  # noqa: A002 (as in URLs)
    """
    Return a code for the web view of the app whose session has made this request: give the request,
    or its session. The code is good for 60 seconds, and for one use, by the URL with the name
    "django_sessionkit:session_hand_over". It is 160 random bits, like a session key.

    ``next`` is the path that the web view is to show. What leads to another site, or has more than
    2,000 characters, becomes LOGIN_REDIRECT_URL.

    Raises ValueError if that is not the session of an app that is signed in, or if staff act as its
    user; UpdateError if the session has ended or is locked, for the middleware to answer; and
    StoreUnavailable.
    """
    code: str = _with_codes(request).issue_code(next)
    return code  # as it is: error reports do not show it


@sensitive_variables()
async def aissue(request: HttpRequest | SessionBase, next: str = "") -> str:  # noqa: A002
    """The async form of issue()."""
    code: str = await _with_codes(request).aissue_code(next)
    return code


def _with_codes(request: HttpRequest | SessionBase) -> Any:
    session = getattr(request, "session", request)
    if not hasattr(session, "issue_code"):
        raise ValueError("The sessions of another engine have no codes.")
    return session


class Opening(NamedTuple):
    """What a good code opens: a session for the user of the app's session."""

    hand_over: Any  # see backends/handing_over.py
    app: UserSession  # the row of the app's session, with its user


# Not in the transaction of the request: the row has to be there for others before it is looked
# whether the app's session has ended meanwhile.
@method_decorator([login_not_required, non_atomic_requests, *GUARDS], name="dispatch")
class HandOverView(TemplateView):
    """
    What a web view loads to be signed in. GET signs in, and leads to the page that the app shows.

    Anybody could lead somebody else's browser here, with a code of their own, and have them go on
    in the wrong account. So GET asks first, and POST signs in, if somebody else is signed in there,
    or if the browser says that it was not its user, or an app, who has opened the URL.
    """

    template_name = "django_sessionkit/session_hand_over.html"
    http_method_names = ("get", "post")

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(request, *args, **kwargs)
        # The page with the form says otherwise: without its origin, Django refuses the form.
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        response.headers["X-Robots-Tag"] = "noindex"
        return response

    @sensitive_variables()
    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        opening = self.opened(kwargs["code"])
        if opening is None:
            return self.gone()
        here, user = self.person_here(), opening.hand_over.facts.user
        is_another = here is not None and here != user
        if self.is_theirs(opening) or not (is_another or is_led_here(request)):
            return self.go_on(opening)
        other = user_of(here) if here is not None and is_another else None
        context = self.get_context_data(account=opening.app.user, other=other, **kwargs)
        headers = {"Referrer-Policy": "same-origin"}
        return self.render_to_response(context, headers=headers)

    @sensitive_variables()
    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        opening = self.opened(kwargs["code"])
        return self.gone() if opening is None else self.go_on(opening)

    @sensitive_variables()
    def opened(self, code: str) -> Opening | None:
        """Return what a code opens, if its app is still signed in, and its user may be."""
        session: Any = self.request.session
        if not hasattr(self.request, "sessionkit"):  # another engine, or another middleware
            return None
        if is_of_app(self.request):  # the new session is that of a browser, in a cookie
            return None
        hand_over = session.read_code(code)
        app = hand_over and signed_in(hand_over.facts.row).select_related("user").first()
        if app is None or is_disabled(app.user):
            return None
        if not has_password_of(app.user, hand_over.auth_hash):
            return None
        return Opening(hand_over, app)

    def person_here(self) -> str | None:
        """
        Return the primary key, as text, of whoever is signed in here, locked or not: of staff, if
        they act as somebody else.
        """
        session: Any = self.request.session
        if session.locked:
            return cast("str", session.locked.person)
        return cast("str", session.person) if self.request.user.is_authenticated else None

    def is_theirs(self, opening: Opening) -> bool:
        """
        Tell whether the user is signed in here already. A session that is locked names no user, and
        one in which staff act as a user names another.
        """
        user = opening.hand_over.facts.user
        return bool(user_in(self.request.session) == self.person_here() == user)

    def go_on(self, opening: Opening) -> HttpResponse:
        """Use the code up, sign in if that is necessary, and lead to the page."""
        session: Any = self.request.session
        if not session.take_code(opening.hand_over):
            return self.gone()
        if not self.is_theirs(opening) and not self.sign_in(opening):
            return self.gone()
        to = local_url(self.request, opening.hand_over.to)
        return HttpResponseRedirect(to or resolve_url(settings.LOGIN_REDIRECT_URL))

    def sign_in(self, opening: Opening) -> bool:
        """Sign in. Return False if the app's session has ended meanwhile."""
        session: Any = self.request.session
        if SESSION_KEY in session:
            # login() would keep the session of staff who act as this user.
            session.flush()
        app, facts = opening.app, opening.hand_over.facts
        visit: Any = self.request.sessionkit  # type: ignore[attr-defined]
        visit.parent = Parent(app.pk, facts, app.browser, app.client_hints, app.label)
        login(self.request, app.user, opening.hand_over.backend)
        session.save()
        if signed_in(app.pk).exists():
            return True
        # Whoever has ended it since did not see the new row.
        UserSession.objects.filter(pk=session.handle).revoke(EndReason.PARENT)
        logout(self.request)
        return False

    def gone(self) -> HttpResponse:
        """Answer for a code that opens nothing, or nothing any more."""
        context = self.get_context_data(sign_in_url=sign_in_url())
        return self.render_to_response(context, status=410)


def is_led_here(request: HttpRequest) -> bool:
    """
    Tell whether a page has led the browser to this URL, by a link say. Of a URL that an app or a
    person has opened, browsers say "none" (https://www.w3.org/TR/fetch-metadata/); old ones say
    nothing.
    """
    return request.headers.get("Sec-Fetch-Site", "none") != "none"


def signed_in(handle: Any) -> UserSessionQuerySet:
    """Return the row of an app's session, if that goes on."""
    return UserSession.objects.primary().active().filter(pk=handle)

"""
A site with the kit's own looks, under a strict policy for content: a sign-in page, a page that only
users see, a form that asks for a recent proof of identity, what an app asks, and the admin.
"""

from collections.abc import Callable
from pathlib import Path

from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView, LogoutView, PasswordChangeView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import include, path

from django_sessionkit.decorators import recent_authentication_required
from tests import store
from tests.admin_sites import staff_site
from tests.urls import hand_over_view, sign_in_view

TEMPLATES = Path(__file__).parent / "templates"

# As strict as a policy can be with which a page still has a style sheet, pictures, scripts, forms.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class StrictPolicy:
    """The middleware of a site that sets a Content-Security-Policy by itself."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response


@login_required
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "home.html")


@login_required
@recent_authentication_required(max_age=300)
def transfer(request: HttpRequest) -> HttpResponse:
    """Send money: a form that is kept while its user enters the password."""
    if request.method == "POST":
        request.session["sent"] = request.POST["amount"]
        return redirect("home")
    return render(request, "transfer.html")


@login_required
def overtaken(request: HttpRequest) -> HttpResponse:
    """Write to the session, while another tab gives it a new key."""
    request.session["sent"] = "1"
    store.SessionStore(request.session.session_key).cycle_key()
    return HttpResponse("written")


def no_icon(request: HttpRequest) -> HttpResponse:
    """Browsers ask for it by themselves."""
    return HttpResponse(status=204)


urlpatterns = [
    path("", home, name="home"),
    path("transfer/", transfer, name="transfer"),
    path("overtaken/", overtaken),
    path("favicon.ico", no_icon),
    path("login/", LoginView.as_view(template_name="form.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path(
        "password/",
        PasswordChangeView.as_view(template_name="form.html", success_url="/"),
        name="password_change",
    ),
    path("account/sessions/", include("django_sessionkit.urls")),
    path("admin/", staff_site.urls),
    path("app/sign-in/", sign_in_view),
    path("app/hand-over/", hand_over_view),
]

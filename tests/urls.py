"""The kit's pages, Django's own, and views that use the session as a site does."""

from django.contrib import admin
from django.contrib.auth import aauthenticate, authenticate
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView
from django.core.exceptions import PermissionDenied
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.middleware.csrf import get_token
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from django_sessionkit.decorators import background_request, recent_authentication_required
from django_sessionkit.handover import aissue, issue
from django_sessionkit.headers import app_of, asign_in, device_name, sign_in
from django_sessionkit.mixins import RecentAuthenticationMixin
from django_sessionkit.models import UserSession
from tests import store


def home(request: HttpRequest) -> HttpResponse:
    """Does not touch the session."""
    return HttpResponse("home")


def whoami(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.user))


async def awhoami(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(await request.auser()))


@login_required
def private(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.user))


@login_required
async def aprivate(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(await request.auser()))


def read(request: HttpRequest) -> HttpResponse:
    """Answers with the contents of the session, without what Django keeps there."""
    return JsonResponse({k: v for k, v in request.session.items() if not k.startswith("_")})


async def aread(request: HttpRequest) -> HttpResponse:
    items = await request.session.aitems()
    return JsonResponse({k: v for k, v in items if not k.startswith("_")})


@csrf_exempt
def write(request: HttpRequest) -> HttpResponse:
    """Puts the posted fields into the session."""
    request.session.update(request.POST.dict())
    return HttpResponse("written")


@csrf_exempt
async def awrite(request: HttpRequest) -> HttpResponse:
    await request.session.aupdate(request.POST.dict())
    return HttpResponse("written")


def end_here(request: HttpRequest) -> HttpResponse:
    """Writes its session after somebody else has ended the session meanwhile."""
    request.session["cart"] = []
    UserSession.objects.revoke()
    return HttpResponse("written")


def end_here_and_save(request: HttpRequest) -> HttpResponse:
    end_here(request)
    request.session.save()
    return HttpResponse("saved")


@csrf_exempt
def cycle_elsewhere(request: HttpRequest) -> HttpResponse:
    """Writes its session after another tab has given the session a new key meanwhile."""
    request.session["cart"] = []
    store.SessionStore(request.session.session_key).cycle_key()
    return HttpResponse("written")


def fail(request: HttpRequest) -> HttpResponse:
    request.session["cart"] = []
    return HttpResponse("out of order", status=500)


def secret_in_a_redirect(request: HttpRequest) -> HttpResponse:
    """Redirects like Django's password reset, which moves the token in its URL to the session."""
    request.session.get("token")
    return HttpResponseRedirect("/reset/set-password/")


def known_by_token(request: HttpRequest) -> HttpResponse:
    request.session.get("token")
    request.user = User.objects.get(username="alice")
    return HttpResponse(str(request.user))


def forbidden(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return HttpResponse("welcome")
    raise PermissionDenied


def own_session(request: HttpRequest) -> HttpResponse:
    """Has another session beside the visitor's, and saves it after it was deleted."""
    session = store.SessionStore()
    session.create()
    session.delete()
    session.save()
    return HttpResponse("saved")


urlpatterns = [
    path("secret_in_a_redirect/", secret_in_a_redirect),
    path("known_by_token/", known_by_token),
    path("forbidden/", csrf_exempt(forbidden)),
    path("own_session/", own_session),
    path("end_here/", end_here),
    path("end_here_and_save/", end_here_and_save),
    path("cycle_elsewhere/", cycle_elsewhere),
    path("fail/", fail),
    path("account/sessions/", include("django_sessionkit.urls")),
    path("api/", include("django_sessionkit.api.urls")),
    path("api/", include("django_sessionkit.api.sign_in_urls")),
    path("login/", LoginView.as_view(template_name="admin/login.html"), name="login"),
    path("logout/", LogoutView.as_view(next_page="home"), name="logout"),
    path("admin/", admin.site.urls),
    path("", home, name="home"),
    path("whoami/", whoami, name="whoami"),
    path("awhoami/", awhoami, name="awhoami"),
    path("private/", private, name="private"),
    path("aprivate/", aprivate, name="aprivate"),
    path("read/", read, name="read"),
    path("aread/", aread, name="aread"),
    path("write/", write, name="write"),
    path("awrite/", awrite, name="awrite"),
]


# Views that take a recent proof of identity.


def pay(request: HttpRequest) -> HttpResponse:
    """Shows a form, and answers with the fields that are posted."""
    if request.method == "GET":
        return HttpResponse(
            f'<form><input name="csrfmiddlewaretoken" value="{get_token(request)}">'
        )
    return JsonResponse({"paid": dict(request.POST.lists()), "query": request.GET.dict()})


async def apay(request: HttpRequest) -> HttpResponse:
    return pay(request)


class Pay(RecentAuthenticationMixin):
    def get(self, request: HttpRequest) -> HttpResponse:
        return pay(request)

    post = get


class AsyncPay(RecentAuthenticationMixin):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return pay(request)

    post = get


def poll(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.session.get("news", "no news")))


async def apoll(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await request.session.aget("news", "no news"))


PAY = recent_authentication_required(max_age=300)

urlpatterns += [
    path("pay/", PAY(pay)),
    path("apay/", PAY(apay)),
    path("pay/class/", Pay.as_view(recent_max_age=300)),
    path("apay/class/", AsyncPay.as_view(recent_max_age=300)),
    path("pay/by_policy/", recent_authentication_required()(pay)),
    path("pay/exempt/", csrf_exempt(PAY(pay))),
    path("pay/never/", Pay.as_view(recent_max_age=0)),
    path("poll/", background_request(poll)),
    path("apoll/", background_request(apoll)),
]


# Where apps sign in: see tests/apps.py.


@non_atomic_requests
@csrf_exempt
def sign_in_view(request: HttpRequest) -> HttpResponse:
    """Signs in as a site does that has a sign-in of its own for apps."""
    fields = request.POST.dict()
    name, password = fields.pop("username"), fields.pop("password")
    user = authenticate(request, username=name, password=password)
    if user is None:
        return JsonResponse({}, status=403)
    renews = fields.pop("renews", "yes") == "yes"
    app = app_of(takes_new_keys=renews, **fields)
    key = sign_in(request, user, app=app)
    return JsonResponse({"key": key, "device": device_name(request)})


@non_atomic_requests
@csrf_exempt
async def asign_in_view(request: HttpRequest) -> HttpResponse:
    fields = request.POST.dict()
    name, password = fields.pop("username"), fields.pop("password")
    user = await aauthenticate(request, username=name, password=password)
    if user is None:
        return JsonResponse({}, status=403)
    renews = fields.pop("renews", "yes") == "yes"
    app = app_of(takes_new_keys=renews, **fields)
    key = await asign_in(request, user, app=app)
    return JsonResponse({"key": key, "device": device_name(request)})


def hand_over_view(request: HttpRequest) -> HttpResponse:
    """Gives an app a code for a web view."""
    return JsonResponse({"code": issue(request, request.GET.get("next", ""))})


async def ahand_over_view(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"code": await aissue(request, request.GET.get("next", ""))})


urlpatterns += [
    path("app/hand-over/", hand_over_view),
    path("app/ahand-over/", ahand_over_view),
    path("app/sign-in/", sign_in_view),
    path("app/asign-in/", asign_in_view),
]

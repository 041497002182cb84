"""The kit's pages, Django's own, and views that use the session as a site does."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt


def home(request: HttpRequest) -> HttpResponse:
    """Leaves the session alone."""
    return HttpResponse("home")


def whoami(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.user))


def read(request: HttpRequest) -> HttpResponse:
    """Answers with what the session holds, but for what Django keeps there."""
    return JsonResponse({k: v for k, v in request.session.items() if not k.startswith("_")})


async def aread(request: HttpRequest) -> HttpResponse:
    items = await request.session.aitems()
    return JsonResponse({k: v for k, v in items if not k.startswith("_")})


@csrf_exempt
def write(request: HttpRequest) -> HttpResponse:
    """Puts into the session what is posted."""
    request.session.update(request.POST.dict())
    return HttpResponse("written")


@csrf_exempt
async def awrite(request: HttpRequest) -> HttpResponse:
    await request.session.aupdate(request.POST.dict())
    return HttpResponse("written")


urlpatterns = [
    path("account/sessions/", include("django_sessionkit.urls")),
    path("login/", LoginView.as_view(template_name="admin/login.html"), name="login"),
    path("logout/", LogoutView.as_view(next_page="home"), name="logout"),
    path("admin/", admin.site.urls),
    path("", home, name="home"),
    path("whoami/", whoami, name="whoami"),
    path("read/", read, name="read"),
    path("aread/", aread, name="aread"),
    path("write/", write, name="write"),
    path("awrite/", awrite, name="awrite"),
]

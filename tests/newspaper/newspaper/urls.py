from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.decorators import login_required, permission_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import include, path


def front_page(request: HttpRequest) -> JsonResponse:
    """How many articles a stranger has read: three are free."""
    return JsonResponse({"read": request.session.get("read", 0), "reader": str(request.user)})


def article(request: HttpRequest, number: int) -> HttpResponse:
    read: int = request.session.get("read", 0)
    if not request.user.is_authenticated and read >= 3:
        return HttpResponse("Please sign in.", status=403)
    request.session["read"] = read + 1
    last: list[int] = request.session.setdefault("last", [])
    last.append(number)
    request.session.modified = True
    return HttpResponse(f"Article {number}")


@login_required
def subscription(request: HttpRequest) -> HttpResponse:
    messages.success(request, "Welcome back")
    return HttpResponse(f"The subscription of {request.user}")


@permission_required("auth.change_user", raise_exception=True)
def newsroom(request: HttpRequest) -> HttpResponse:
    return HttpResponse("The newsroom")


def remember(request: HttpRequest) -> HttpResponse:
    request.session.set_expiry(365 * 24 * 60 * 60)
    return redirect("/")


async def asynchronous(request: Any) -> JsonResponse:
    visits = await request.session.aget("visits", 0) + 1
    await request.session.aset("visits", visits)
    return JsonResponse({"visits": visits, "reader": str(await request.auser())})


urlpatterns = [
    path("", front_page),
    path("articles/<int:number>/", article),
    path("subscription/", subscription),
    path("newsroom/", newsroom),
    path("remember/", remember),
    path("async/", asynchronous),
    path("accounts/", include("django.contrib.auth.urls")),
    path("admin/", admin.site.urls),
]

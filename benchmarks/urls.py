"""The smallest site: a view that reads the user, a view that also writes, and both as async."""

from secrets import randbits

from django.http import HttpRequest, HttpResponse
from django.urls import path


def none(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nobody")


def read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.user.get_username())


def write(request: HttpRequest) -> HttpResponse:
    request.session["number"] = randbits(32)
    return HttpResponse(request.user.get_username())


async def aread(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await request.session.aget("_auth_user_id"))


async def awrite(request: HttpRequest) -> HttpResponse:
    await request.session.aset("number", randbits(32))
    return HttpResponse(await request.session.aget("_auth_user_id"))


urlpatterns = [path(f"{view.__name__}/", view) for view in (none, read, write, aread, awrite)]

"""The URLs of the example project, a sign-in for apps, and a clock that can be put forward."""

from datetime import timedelta

import time_machine
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils import timezone

from example_project.urls import urlpatterns as shop
from tests.urls import read, sign_in_view, write


def later(request: HttpRequest, seconds: int) -> HttpResponse:
    """Puts the clock of the server forward."""
    time_machine.travel(timezone.now() + timedelta(seconds=seconds)).start()
    return HttpResponse("later")


def crash(request: HttpRequest) -> HttpResponse:
    request.session.get("name")
    raise RuntimeError("out of order")


urlpatterns = [
    *shop,
    path("app/sign-in/", sign_in_view),
    path("read/", read),
    path("write/", write),
    path("later/<int:seconds>/", later),
    path("crash/", crash),
]

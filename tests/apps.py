"""Apps: clients that keep the session key themselves, and send it in a header."""

from typing import Any

from asgiref.sync import async_to_sync
from django.contrib.auth import aauthenticate, authenticate
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from django_sessionkit.handover import aissue, issue
from django_sessionkit.headers import app_of, asign_in, device_name, sign_in
from tests.urls import urlpatterns as site

SIGN_IN, ASIGN_IN = "/app/sign-in/", "/app/asign-in/"


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


urlpatterns = [
    *site,
    path("app/hand-over/", hand_over_view),
    path("app/ahand-over/", ahand_over_view),
    path("app/sign-in/", sign_in_view),
    path("app/asign-in/", asign_in_view),
]


class _Keeping:
    """What an app does with the session key: it keeps the key, sends it, and takes the next one."""

    key: str = ""
    device: str = ""
    usual: dict[str, str]

    def sent(self, headers: Any) -> dict[str, str]:
        bearer = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return {**self.usual, **bearer, **dict(headers)}

    def took(self, answer: Any) -> Any:
        assert not answer.cookies, answer.cookies
        assert "Cookie" not in answer.headers.get("Vary", "")
        self.key = answer.headers.get("Session-Key", self.key)
        return answer

    def sign_in(self, url: str = "", **fields: Any) -> Any:
        """Sign in, as Alice if nobody else is named. Return the answer."""
        fields = {"username": "alice", "password": "secret", **fields}
        answer: Any = self.post(url or self.sign_in_url, fields)  # type: ignore[attr-defined]
        if answer.status_code == 200:
            self.key, self.device = answer.json()["key"], answer.json()["device"]
        return answer

    def code(self, to: str = "/whoami/") -> str:
        """Return a code for a web view that is to show this page."""
        answer: Any = self.get(f"/app/{self.a}hand-over/", {"next": to})  # type: ignore[attr-defined]
        assert answer.status_code == 200
        code: str = answer.json()["code"]
        return code


class App(_Keeping, Client):
    """An app that talks to the WSGI handler."""

    a = ""
    sign_in_url = SIGN_IN

    def __init__(self, headers: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(enforce_csrf_checks=True, **kwargs)
        self.usual = headers or {}

    def get(self, *args: Any, headers: Any = (), **kwargs: Any) -> Any:
        return self.took(super().get(*args, headers=self.sent(headers), **kwargs))

    def post(self, *args: Any, headers: Any = (), **kwargs: Any) -> Any:
        return self.took(super().post(*args, headers=self.sent(headers), **kwargs))


class AsgiApp(_Keeping, AsyncClient):
    """An app that talks to the ASGI handler, with sync methods."""

    a = "a"
    sign_in_url = ASIGN_IN

    def __init__(self, headers: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(enforce_csrf_checks=True, **kwargs)
        self.usual = headers or {}

    def get(self, *args: Any, headers: Any = (), **kwargs: Any) -> Any:
        answer = async_to_sync(super().get)(*args, headers=self.sent(headers), **kwargs)
        return self.took(answer)

    def post(self, *args: Any, headers: Any = (), **kwargs: Any) -> Any:
        answer = async_to_sync(super().post)(*args, headers=self.sent(headers), **kwargs)
        return self.took(answer)


APPS = {"wsgi": App, "asgi": AsgiApp}

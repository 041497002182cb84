"""The URLs of the example project, a view about which its user is told, and the way of the mail."""

import time
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend
from django.http import HttpRequest, HttpResponse
from django.urls import path

from django_sessionkit.models import UserSession
from django_sessionkit.signals import session_key_reused
from tests.home.served import FOLDER, urlpatterns


class SlowBackend(BaseEmailBackend):
    """Takes a mail when somebody lets it, and leaves it in a file."""

    def send_messages(self, email_messages: Any) -> int:
        (FOLDER / "began").touch()
        deadline = time.monotonic() + 60
        while not (FOLDER / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        (message,) = email_messages
        (FOLDER / "writing").write_text(message.body)
        (FOLDER / "writing").rename(FOLDER / "mail")
        return 1


def reuse(request: HttpRequest) -> HttpResponse:
    row = UserSession.objects.latest("id")
    row.user.email = "alice@example.org"
    row.user.save()
    session_key_reused.send_robust(UserSession, handle=row.pk, client=None)
    return HttpResponse("answered")


urlpatterns = [*urlpatterns, path("reuse/", reuse)]

"""How staff act as a user, by each of the packages for that: as the forms of their pages do it."""

from typing import Any

from django.contrib.auth.models import User

# These sign the user in. django-impersonate does not: it changes request.user.
SIGN_IN = ["hijack", "loginas"]
PACKAGES = [*SIGN_IN, "impersonate"]


class Support:
    """A member of the staff at a browser."""

    def __init__(self, browser: Any, package: str) -> None:
        self.browser, self.package = browser, package

    def act_as(self, user: User) -> None:
        match self.package:
            case "hijack":
                answer = self.browser.post("/hijack/acquire/", {"user_pk": user.pk})
            case "loginas":
                answer = self.browser.post(f"/loginas/login/user/{user.pk}/")
            case "impersonate":
                answer = self.browser.get(f"/impersonate/{user.pk}/")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/")

    def stop(self) -> None:
        match self.package:
            case "hijack":
                answer = self.browser.post("/hijack/release/", {"next": "/"})
            case "loginas":
                answer = self.browser.get("/loginas/logout/")
            case "impersonate":
                answer = self.browser.get("/impersonate/stop/")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/")

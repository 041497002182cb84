"""Which session is the current one, and is spared when its user changes something."""

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import path

from tests.people import is_in, key_of
from tests.store import SessionStore
from tests.urls import urlpatterns as site

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.transports("cookie", "header"),
]

OTHERS: list[str] = []


def change(request):
    """Becomes staff, after a look into other sessions, as a list of devices might take."""
    request.session.get("cart")
    others = [SessionStore(key) for key in OTHERS]
    for other in others:
        other.get("cart")
    become_staff()
    return HttpResponse("done")


urlpatterns = [*site, path("change/", change)]


def become_staff():
    user = User.objects.get(username="alice")
    user.is_staff = True
    user.save()


def change_password():
    user = User.objects.get(username="alice")
    user.set_password("another")
    user.save()


@pytest.mark.parametrize("change", [become_staff, change_password])
def test_a_session_that_a_script_has_loaded_is_not_spared(signed_in, policy, drive, change):
    policy(on_privilege_change="end")
    browser, other = signed_in(), signed_in()
    session = SessionStore(key_of(browser))
    drive(session, "get", "cart")
    change()
    assert not session.exists(key_of(browser))
    assert not is_in(browser)
    assert not is_in(other)


@pytest.mark.parametrize("middleware", ["django_sessionkit", "django.contrib.sessions"])
@pytest.mark.transports("cookie")
def test_the_session_of_the_request_is_spared_whatever_else_the_view_loads(
    signed_in, policy, settings, middleware
):
    policy(on_privilege_change="end")
    settings.MIDDLEWARE = [
        name.replace("django_sessionkit.middleware", f"{middleware}.middleware")
        for name in settings.MIDDLEWARE
    ]
    browser, other = signed_in(), signed_in()
    OTHERS[:] = [key_of(other)]
    assert browser.get("/change/").content == b"done"
    assert is_in(browser)
    assert not SessionStore().exists(key_of(other))

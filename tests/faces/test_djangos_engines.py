"""
Our middleware with Django's engines, as in tests that override SESSION_ENGINE: it does what
Django's middleware does. The check sessionkit.E002 says that no session can be ended.
"""

import pytest
from django.http import HttpResponse
from django.urls import path

from django_sessionkit.models import UserSession
from tests.browsers import cart, deletes_the_cookie, given, put, read, sets_no_cookie, view
from tests.people import is_in, key_of, post_sign_in
from tests.programs import call, problem
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.once, pytest.mark.site(__name__)]

ENGINES = ["db", "cache", "cached_db", "file", "signed_cookies"]


def delete_meanwhile(request):
    """Another request has deleted the session of this one."""
    request.session["cart"] = "kettle"
    type(request.session)(request.session.session_key).delete()
    return HttpResponse("written")


async def adelete_meanwhile(request):
    await request.session.aset("cart", "kettle")
    await type(request.session)(request.session.session_key).adelete()
    return HttpResponse("written")


urlpatterns = [
    *site,
    path("delete_meanwhile/", delete_meanwhile),
    path("adelete_meanwhile/", adelete_meanwhile),
]


@pytest.fixture(params=ENGINES, autouse=True)
def engine(request, settings, tmp_path):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    settings.SESSION_CACHE_ALIAS = "default"
    settings.SESSION_FILE_PATH = str(tmp_path)
    return request.param


def test_a_visitor_has_a_session(browse):
    browser = browse()
    assert sets_no_cookie(read(browser))
    assert given(put(browser, cart="teapot"))
    assert cart(browser) == "teapot"
    assert sets_no_cookie(read(browser))
    assert browser.get("/fail/").status_code == 500


def test_a_user_signs_in_and_out(browse, alice):
    browser = browse()
    put(browser, cart="teapot")
    visitor = key_of(browser)
    assert post_sign_in(browser).status_code == 302
    assert key_of(browser) != visitor
    assert is_in(browser)
    assert cart(browser) == "teapot"
    assert deletes_the_cookie(browser.post("/logout/"))
    assert not is_in(browser)
    assert not UserSession.objects.exists()


def test_no_code_opens_anything(browse, alice):
    browser = browse()
    assert browser.get("/account/sessions/hand-over/code/").status_code == 410
    post_sign_in(browser)
    assert browser.get("/account/sessions/hand-over/code/").status_code == 410


def test_nobody_gets_a_code(browse, alice):
    browser = browse()
    post_sign_in(browser)
    problem(call(browser, "POST", "hand-over/", {}), 403, "not_an_app")


def test_every_request_can_save_it(browse, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    browser = browse()
    put(browser, cart="teapot")
    assert given(read(browser))


def test_a_session_that_is_deleted_meanwhile_is_interrupted(browse, engine):
    browser = browse()
    put(browser, cart="teapot")
    response = browser.get(view(browser, "delete_meanwhile"))
    # Nothing can be deleted from a cookie.
    assert response.status_code == (200 if engine == "signed_cookies" else 400)

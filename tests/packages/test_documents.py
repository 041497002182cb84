"""What docs/compatibility.md shows is done."""

import sys
from types import ModuleType
from typing import Any

import pytest
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from tests.documents import blocks_of, run_block
from tests.packages.urls import urlpatterns as site
from tests.people import is_in, post_sign_in, row_of
from tests.urls import whoami

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]


@pytest.fixture
def shown(tmp_path):
    """A function that runs the example which has these words, and returns its names."""

    def shown(words):
        (block,) = [b for b in blocks_of("docs/compatibility.md") if words in b.text]
        return run_block(block, tmp_path)

    return shown


def ping(request):
    """As that of django-session-security, which keeps the time of the last activity itself."""
    request.session["last_ping"] = "now"
    return HttpResponse("0")


@csrf_exempt
def editing(request):
    """As Wagtail's, which notes who edits what."""
    return HttpResponse(str(request.user))


ACTING: list[Any] = []


def act_as(request):
    function, customer = ACTING
    function(request, customer)
    return HttpResponse("done")


urlpatterns = [
    path("session_security/ping/", ping),
    path("admin/editing-sessions/ping/", editing),
    path("act_as/", act_as),
    path("cms/login/", whoami, name="wagtailadmin_login"),
    *site,
]


@pytest.mark.parametrize("package", ["session_security", "wagtail"])
def test_a_page_that_polls_keeps_no_session_alive(
    clock, policy, enter, alice, settings, shown, monkeypatch, package
):
    policy(idle=600)
    if package == "wagtail":
        middleware = ModuleType("middleware_of_the_docs")
        vars(middleware).update(shown("editing-sessions"))
        monkeypatch.setitem(sys.modules, "middleware_of_the_docs", middleware)
        settings.MIDDLEWARE = [
            *settings.MIDDLEWARE,
            "middleware_of_the_docs.editing_is_no_activity",
        ]
    else:
        settings.SESSIONKIT_BACKGROUND = shown("SESSIONKIT_BACKGROUND")["SESSIONKIT_BACKGROUND"]
    browser = enter("alice", "secret")

    def poll():
        if package == "wagtail":
            return browser.post("/admin/editing-sessions/ping/", {"is_editing": "1"})
        return browser.get("/session_security/ping/?idleFor=1")

    for _ in range(5):
        clock.move(seconds=100)
        assert poll().status_code == 200
    assert is_in(browser)  # which is activity
    for _ in range(6):
        clock.move(seconds=100)
        poll()
    assert not is_in(browser)


def test_staff_who_act_as_a_user_by_code_of_the_site(enter, alice, staff, policy, clock, shown):
    policy(limit=1)
    phone, office = enter("alice", "secret"), enter("carol", "oolong")
    proved = row_of(office).authenticated_at
    clock.move(seconds=1000)
    ACTING[:] = shown("def act_as")["act_as"], alice
    assert office.get("/act_as/").status_code == 200
    assert is_in(phone)
    assert is_in(office)
    row = row_of(office)
    assert (row.counts, row.support, row.authenticated_at) == (False, True, proved)
    assert post_sign_in(office, "carol", "oolong").status_code == 302
    assert row_of(office).user == staff


def test_a_sign_in_page_that_a_cms_has(enter, alice, settings, shown):
    settings.LOGIN_URL = shown("LOGIN_URL")["LOGIN_URL"]
    browser = enter("alice", "secret")
    alice.sessionkit_sessions.revoke()
    assert browser.get("/forbidden/").headers["Location"] == "/cms/login/?next=/forbidden/"

"""A site whose LOGIN_URL leads to no page, as in a new project: nobody is sent to a 404."""

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import clear_script_prefix, include, path, re_path, set_script_prefix

from django_sessionkit.decorators import recent_authentication_required
from django_sessionkit.models import UserSession
from tests.browsers import SCRIPT
from tests.pages import LIST, OTHERS, PROVE
from tests.people import end_url, row_of

pytestmark = pytest.mark.django_db

TEXT = (
    "You were signed out from another device. If that was not you, sign in and change your"
    " password."
)


def private(request):
    return HttpResponse("private")


def refuse(request):
    """Refuses strangers, and leaves it to others where they sign in."""
    if not request.user.is_authenticated:
        raise PermissionDenied
    return HttpResponse("welcome")


def page_of_cms(request, where):
    """The view for all paths that are left, as Wagtail has it."""
    raise Http404


def with_its_own_sign_in_page(request):
    if not request.user.is_authenticated:
        return redirect(f"/admin/login/?next={request.path}")
    return HttpResponse("pages")


def next_page(request):
    request.session.get("page")
    return HttpResponseRedirect("?page=2")


# What startproject makes, with a view and the pages of the kit.
NEW = (
    path("admin/", admin.site.urls),
    path("members/", refuse),
    path("private/", login_required(private)),
    path("pay/", recent_authentication_required()(private)),
    path("next/", next_page),
    path("pages/", with_its_own_sign_in_page),
    path("account/sessions/", include("django_sessionkit.urls")),
)
CMS = (*NEW, re_path(r"^((?:[\w\-]+/)*)$", page_of_cms))
sign_in = LoginView.as_view(template_name="admin/login.html")


@pytest.fixture(params=[NEW, CMS], ids=["new", "cms"])
def new_project(request, settings):
    """A function that turns the site into that of a new project: nobody could sign in there."""

    def new_project():
        settings.ROOT_URLCONF, settings.LOGIN_URL = request.param, "/accounts/login/"
        settings.LOGIN_REDIRECT_URL = "/accounts/profile/"

    return new_project


@pytest.fixture
def signed_out(signed_in, new_project):
    """Alice, whose session was ended."""
    browser = signed_in()
    new_project()
    UserSession.objects.revoke()
    return browser


@pytest.mark.parametrize("url", ["/members/", "/private/"])
def test_whoever_was_signed_out_is_told_where_there_is_no_page_to_sign_in(signed_out, url):
    response = signed_out.get(url)
    assert response.status_code == 401
    assert TEXT in response.text


def test_a_redirect_to_a_page_that_is_not_there_is_a_refusal(signed_out):
    assert signed_out.post("/private/").status_code == 401


def test_a_redirect_to_another_query_of_the_same_page_is_none(signed_out):
    assert signed_out.get("/next/").headers["Location"] == "?page=2"


def test_a_view_that_knows_its_own_sign_in_page_sends_there(signed_out):
    response = signed_out.get("/pages/")
    assert (response.status_code, response.headers["Location"]) == (
        302,
        "/admin/login/?next=/pages/",
    )


def test_a_script_gets_a_401(signed_out):
    response = signed_out.get("/private/", headers=SCRIPT)
    assert response.status_code == 401
    assert response.json()["reason"] == "revoked"


@pytest.mark.parametrize("url", [LIST, OTHERS, PROVE, "/pay/"])
def test_a_stranger_is_refused_where_there_is_no_page_to_sign_in(browse, db, new_project, url):
    new_project()
    assert browse().get(url).status_code == 403


def test_whoever_has_no_password_cannot_prove_who_they_are_without_a_page(
    signed_in, new_project, clock
):
    browser = signed_in()
    new_project()
    alice = User.objects.get()
    alice.set_unusable_password()
    User.objects.bulk_update([alice], ["password"])
    browser = signed_in_again(browser, alice)
    clock.move(seconds=2 * 60 * 60)
    for url in ("/pay/", PROVE):
        assert browser.get(url).status_code == 403


def signed_in_again(browser, user):
    other = type(browser)(headers=browser.usual if browser.a else None)
    other.force_login(user)
    return other


def test_whoever_signs_this_device_out_reads_so(signed_in, new_project):
    browser = signed_in()
    url = end_url(browser)
    new_project()
    row = row_of(browser)
    response = browser.post(url)
    assert response.status_code == 200
    assert "You have signed out." in response.text
    row.refresh_from_db()
    assert row.ended_at


# Pages that are there, though not just under this path.


@pytest.mark.parametrize(
    ("login_url", "patterns"),
    [
        ("/sign-in", [path("sign-in/", sign_in)]),
        ("/sign-in/", i18n_patterns(path("sign-in/", sign_in))),
        ("/sign-in/", [re_path("", sign_in)]),  # one view for all, as a script's routes have it
        ("//sso.example/sign-in", []),
    ],
)
def test_django_leads_to_the_page_from_there(signed_in, settings, login_url, patterns):
    browser = signed_in()
    settings.ROOT_URLCONF, settings.LOGIN_URL = (path("members/", refuse), *patterns), login_url
    UserSession.objects.revoke()
    assert browser.get("/members/").headers["Location"].startswith(f"{login_url}?next=")


def test_a_path_without_its_slash_leads_nowhere_on_a_site_that_adds_none(signed_in, settings):
    browser = signed_in()
    settings.ROOT_URLCONF = (path("members/", refuse), path("sign-in/", sign_in))
    settings.LOGIN_URL, settings.APPEND_SLASH = "/sign-in", False
    UserSession.objects.revoke()
    assert browser.get("/members/").status_code == 401


@pytest.mark.parametrize(
    ("login_url", "is_there"), [("/shop/sign-in/", True), ("/shop/", False), ("/sso/", True)]
)
def test_a_site_under_a_path_of_its_own(signed_in, settings, login_url, is_there):
    """What is outside of that path is another server's business."""
    browser = signed_in()
    settings.ROOT_URLCONF = (path("members/", refuse), path("sign-in/", sign_in))
    settings.LOGIN_URL = login_url
    UserSession.objects.revoke()
    set_script_prefix("/shop/")  # as Django's handlers do, but not those of its test clients
    try:
        response = browser.get("/members/")
    finally:
        clear_script_prefix()
    if is_there:
        assert response.headers["Location"].startswith(f"{login_url}?next=")
    else:
        assert response.status_code == 401

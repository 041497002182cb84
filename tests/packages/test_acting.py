"""Staff act as a user: by django-hijack, django-loginas and django-impersonate, also with axes."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.contrib.messages import get_messages
from django.core.cache import cache
from django.http import HttpResponse
from django.urls import path

from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import STAFF
from django_sessionkit.signals import session_started
from tests.browsers import deletes_the_cookie
from tests.packages.support import PACKAGES, SIGN_IN
from tests.packages.urls import urlpatterns as site
from tests.pages import LIST, PROVE, words
from tests.people import end_url, handle, is_in, key_of, post_sign_in, row_of, who
from tests.programs import call
from tests.store import SessionStore, payloads

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]


def set_password(request):
    if name := request.GET.get("token"):
        request.session.get("cart")
        request.user = User.objects.get(username=name)
    user = User.objects.get(pk=request.user.pk)
    user.set_password("sencha")
    user.save()
    return HttpResponse("done")


def show_messages(request):
    return HttpResponse("\n".join(map(str, get_messages(request))))


urlpatterns = [
    *site,
    path("set_password/", set_password),
    path("messages/", show_messages),
]

each_package = pytest.mark.parametrize("package", PACKAGES)
each_that_signs_in = pytest.mark.parametrize("package", SIGN_IN)
each_mode = pytest.mark.parametrize("mode", ["end_oldest", "end_idlest", "refuse", "ask"])


# To act as somebody, and to stop, proves nothing.


@each_package
def test_acting_as_a_user_and_back_does_not_make_the_proof_of_staff_newer(
    support, alice, staff, policy, clock, package
):
    policy(absolute=3600)
    at_work = support(package)
    proved = row_of(at_work.browser).authenticated_at
    for change in (lambda: at_work.act_as(alice), at_work.stop):
        clock.move(seconds=1000)
        change()
        row = row_of(at_work.browser)
        assert row.authenticated_at == proved
        assert row.expires_at == proved + timedelta(seconds=3600)
        assert at_work.browser.get("/pay/").headers["Location"].startswith(PROVE)
    assert is_in(at_work.browser, staff)
    clock.move(seconds=1601)
    assert not is_in(at_work.browser, staff)


@each_that_signs_in
def test_acting_as_a_user_ends_with_the_time_of_staff(support, alice, policy, clock, package):
    policy(absolute=3600)
    at_work = support(package)
    clock.move(seconds=2000)
    at_work.act_as(alice)
    clock.move(seconds=1500)
    assert is_in(at_work.browser)
    clock.move(seconds=101)
    assert not is_in(at_work.browser)


def test_whoever_signs_in_after_somebody_else_has_proved_who_they_are(enter, phone, staff, clock):
    clock.move(seconds=1000)
    assert post_sign_in(phone, "carol", "oolong").status_code == 302
    assert row_of(phone).authenticated_at == row_of(phone).started_at
    assert phone.get("/pay/").status_code == 200


@each_that_signs_in
def test_another_user_who_signs_in_while_staff_act_as_one_has_a_proof_of_their_own(
    support, alice, bob, clock, package
):
    at_work = support(package)
    at_work.act_as(alice)
    clock.move(seconds=1000)
    assert post_sign_in(at_work.browser, "bob").status_code == 302
    row = row_of(at_work.browser)
    assert (row.user, row.support, row.counts) == (bob, False, True)
    assert at_work.browser.get("/pay/").status_code == 200


# Whoever is behind the session proves it, and is named.


@each_package
def test_staff_who_act_as_a_user_are_asked_for_their_own_password(support, alice, clock, package):
    at_work = support(package)
    at_work.act_as(alice)
    browser, before = at_work.browser, row_of(at_work.browser)
    clock.move(seconds=1000)
    page = browser.get(browser.get("/pay/").headers["Location"])
    assert "Signed in as carol." in words(page)
    refused = browser.post(PROVE, {"password": "secret", "next": "/pay/"})
    assert "That is not the password of this account." in words(refused)
    assert browser.post(PROVE, {"password": "oolong", "next": "/pay/"}).status_code == 302
    assert browser.get("/pay/").status_code == 200
    assert is_in(browser)
    row = row_of(browser)
    assert (row.pk, row.support) == (before.pk, before.support)
    assert SessionStore(key_of(browser)).policy.idle == STAFF.idle
    at_work.stop()
    assert is_in(browser, "carol")
    assert browser.get("/pay/").status_code == 200


@each_package
def test_a_form_that_staff_send_while_they_act_as_a_user_asks_for_their_own_password(
    support, alice, clock, package
):
    at_work = support(package)
    at_work.act_as(alice)
    clock.move(seconds=1000)
    page = at_work.browser.post("/pay/exempt/", {"amount": "5"})
    assert page.status_code == 403
    assert "Signed in as carol." in words(page)


@each_that_signs_in
def test_staff_open_a_session_that_is_locked_by_their_own_password(
    support, alice, policy, clock, package
):
    policy(idle=600, absolute=7200, lock=True)
    at_work = support(package)
    at_work.act_as(alice)
    clock.move(seconds=700)
    assert who(at_work.browser) == PROVE
    refused = at_work.browser.post(PROVE, {"password": "secret", "next": "/"})
    assert "That is not the password of this account." in words(refused)
    assert at_work.browser.post(PROVE, {"password": "oolong", "next": "/"}).status_code == 302
    assert is_in(at_work.browser)


@each_package
def test_what_staff_end_while_they_act_as_a_user_is_ended_by_them(
    support, alice, staff, phone, ended, package
):
    at_work = support(package)
    at_work.act_as(alice)
    ended.clear()
    row = row_of(phone)
    assert at_work.browser.post(end_url(phone)).status_code == 302
    row.refresh_from_db()
    assert (row.end_reason, row.ended_by) == (EndReason.REVOKED, staff)
    assert ended == [({row.pk}, EndReason.REVOKED, staff)]


@each_package
def test_a_password_that_staff_change_while_they_act_as_a_user_ends_sessions_by_them(
    support, alice, staff, phone, package
):
    at_work = support(package)
    at_work.act_as(alice)
    row = row_of(phone)
    assert at_work.browser.get("/set_password/").status_code == 200
    row.refresh_from_db()
    assert (row.end_reason, row.ended_by) == (EndReason.PASSWORD_CHANGE, staff)


@each_package
def test_what_staff_end_in_the_admin_while_they_act_as_other_staff_is_ended_by_them(
    support, root, staff, phone, package, settings
):
    if package == "impersonate":
        settings.IMPERSONATE = {**settings.IMPERSONATE, "ALLOW_SUPERUSER": True}
    at_work = support(package)
    at_work.act_as(root)
    row = row_of(phone)
    url = f"/admin/django_sessionkit/usersession/{row.pk}/delete/"
    at_work.browser.post(url, {"note": "ticket 4711"})
    row.refresh_from_db()
    assert (row.end_reason, row.ended_by) == (EndReason.REVOKED_BY_STAFF, staff)
    entry = LogEntry.objects.get(content_type=ContentType.objects.get_for_model(UserSession))
    assert (entry.user, entry.object_id) == (staff, str(row.pk))


def test_whoever_is_known_by_a_token_is_named_and_not_whose_cookie_comes_with_it(
    enter, alice, bob, phone
):
    browser = enter("bob", "secret")
    row = row_of(phone)
    assert browser.get("/set_password/", {"token": "alice"}).status_code == 200
    row.refresh_from_db()
    assert (row.end_reason, row.ended_by) == (EndReason.PASSWORD_CHANGE, alice)


# What the user sees of it.


@each_that_signs_in
def test_browser_of_staff_who_act_as_a_user_is_none_of_the_users(
    support, alice, phone, package, django_capture_on_commit_callbacks
):
    User.objects.update(date_joined="2020-01-01T00:00Z")
    heard = []

    def listen(handle, novelty, **kwargs):
        heard.append((handle, novelty))

    session_started.connect(listen)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            at_work = support(package)
            theirs = row_of(at_work.browser)
            at_work.act_as(alice)
            row = row_of(at_work.browser)
            at_work.stop()
        back = row_of(at_work.browser)
    finally:
        session_started.disconnect(listen)
    assert (row.user, row.support, row.browser, row.novelty, row.label) == (
        alice,
        True,
        None,
        "",
        "",
    )
    assert theirs.browser
    assert theirs.browser == back.browser
    assert back.novelty == ""
    assert row.pk not in [handle for handle, _ in heard]
    assert (theirs.pk, "") in heard
    # Neither does the user know it from then on.
    phone.post("/logout/")
    post_sign_in(at_work.browser, "alice", "secret")
    assert row_of(at_work.browser).novelty == "device"


@each_package
def test_a_user_sees_that_staff_act_as_them_but_not_where_these_are(
    support, alice, phone, package, settings
):
    at_work = support(package)
    at_work.act_as(alice)
    pages = [phone.get(url).text for url in (LIST, f"{LIST}others/end/")]
    acting = UserSession.objects.filter(support=True).first()
    if package == "impersonate":  # the session is that of the staff
        assert acting is None
    else:
        assert all("Support access" in words(page) for page in pages)
        pages.append(phone.get(f"{LIST}{acting.pk}/end/").text)
        assert "Sign out Support access?" in words(pages[-1])
        assert "Address" not in words(pages[-1])
    for page in pages:
        assert "198.51.100.7" not in page
        assert "Chrome" not in page
    page = at_work.browser.get(LIST)
    assert "198.51.100.7" not in page.text


@each_that_signs_in
def test_a_user_ends_the_session_of_staff_who_act_as_them(support, alice, phone, package):
    at_work = support(package)
    at_work.act_as(alice)
    assert phone.post(end_url(at_work.browser)).headers["Location"] == LIST
    assert "Support access was signed out." in read_messages(phone)
    assert not is_in(at_work.browser)
    assert "Support access was signed out already" in words(phone.get(end_url_of_ended(phone)))


def read_messages(phone):
    return phone.get("/messages/").text


def end_url_of_ended(phone):
    return f"{LIST}{UserSession.objects.get(support=True).pk}/end/"


@each_that_signs_in
def test_staff_with_the_permission_see_all_of_it(support, enter, root, alice, package):
    at_work = support(package)
    at_work.act_as(alice)
    admin = enter("root", "secret")
    page = words(
        admin.get(f"/admin/django_sessionkit/usersession/{handle(at_work.browser)}/change/")
    )
    assert "198.51.100.7" in page
    assert "Chrome on Windows" in page


@each_that_signs_in
def test_staff_whose_account_is_disabled_act_as_nobody(support, alice, staff, clock, package):
    at_work = support(package)
    at_work.act_as(alice)
    User.objects.filter(pk=staff.pk).update(is_active=False)  # which sends no signal
    clock.move(seconds=61)
    assert not is_in(at_work.browser)
    assert UserSession.objects.get(support=True).end_reason == EndReason.ACCOUNT_DISABLED


# The limit.


@pytest.fixture(params=[False, True], ids=["", "axes"])
def axes(request, settings):
    """Without axes, and with it: it creates the session while the user is being signed in."""
    settings.AXES_ENABLED = request.param


@each_mode
@each_that_signs_in
def test_staff_who_act_as_a_user_push_nobody_out(
    axes, support, enter, alice, staff, policy, ended, package, mode
):
    policy(limit=1, on_limit=mode)
    phone = enter("alice", "secret")
    at_work = support(package)
    at_work.act_as(alice)
    assert is_in(at_work.browser)
    assert is_in(phone)
    row = row_of(at_work.browser)
    assert (row.user, row.counts, row.support) == (alice, False, True)
    assert EndReason.LIMIT not in [reason for _, reason, _ in ended]
    at_work.stop()
    row = row_of(at_work.browser)
    assert (row.user, row.counts, row.support) == (staff, True, False)
    assert is_in(phone)


@each_that_signs_in
def test_staff_act_as_a_third_person_from_there(
    axes, support, alice, root, staff, policy, clock, package
):
    policy(limit=1)
    at_work = support(package)
    proved = row_of(at_work.browser).authenticated_at
    clock.move(seconds=1000)
    at_work.act_as(root)
    at_work.act_as(alice)
    page = at_work.browser.get(PROVE)
    assert "Signed in as carol." in words(page)
    row = row_of(at_work.browser)
    assert (row.user, row.counts, row.support) == (alice, False, True)
    assert row.authenticated_at == proved
    at_work.stop()
    assert row_of(at_work.browser).user == root
    if package == "hijack":  # django-loginas does not know any more that this is not root
        at_work.stop()
        row = row_of(at_work.browser)
        assert (row.user, row.counts, row.support) == (staff, True, False)
        assert row.authenticated_at == proved


@each_mode
def test_whoever_signs_in_after_somebody_else_is_counted(axes, enter, alice, bob, policy, mode):
    policy(limit=1, on_limit=mode)
    first, second = enter("alice", "secret"), enter("bob", "secret")
    answer = post_sign_in(second, "alice")
    match mode:
        case "refuse":
            assert deletes_the_cookie(answer)  # that of Bob's session, which has ended
            assert set(payloads()) == {row_of(first).digest}
            assert is_in(first)
            assert who(second) in ("", "/login/")
            assert UserSession.objects.filter(user=alice).count() == 1
        case "ask":
            assert is_in(first)
            assert who(second) == "/account/sessions/limit/"
        case _:
            assert is_in(second)
            assert not is_in(first)


# Guessing.


@pytest.mark.parametrize("where", ["reauthenticate/", "sign-in/"])
def test_axes_protects_the_api_where_it_takes_a_password(enter, alice, settings, where):
    settings.AXES_ENABLED, settings.AXES_FAILURE_LIMIT = True, 3
    cache.clear()
    browser = enter("alice", "secret")
    name = {"username": "alice"} if where == "sign-in/" else {}
    for status in (403, 403, 429):
        answer = call(browser, "POST", where, {**name, "password": "wrong"})
        assert answer.status_code == status
    assert answer["Content-Type"] != "application/problem+json"  # it is the answer of axes
    assert call(browser, "POST", where, {**name, "password": "secret"}).status_code == 429
    assert is_in(browser)


def test_axes_protects_our_page_for_the_password(enter, alice, settings, clock):
    settings.AXES_ENABLED, settings.AXES_FAILURE_LIMIT = True, 3
    browser = enter("alice", "secret")
    clock.move(seconds=1000)
    for _ in range(3):
        answer = browser.post(PROVE, {"password": "wrong", "next": "/pay/"})
    assert answer.status_code == 429
    assert browser.post(PROVE, {"password": "secret", "next": "/pay/"}).status_code == 429
    assert browser.get("/pay/").status_code == 302

"""A new password, or a stronger hash of the old one: which sessions end, and which go on."""

import re
from datetime import timedelta
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import (
    aupdate_session_auth_hash,
    login,
    update_session_auth_hash,
    views,
)
from django.contrib.auth.hashers import MD5PasswordHasher
from django.contrib.auth.models import User
from django.core import mail, serializers
from django.db import connection, transaction
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_sessionkit.models import EndReason
from django_sessionkit.policy import Policy
from tests import store
from tests.accounts import CHANGED, alive, changed, listed, rows
from tests.browsers import PAGE
from tests.pages import PROVE, press
from tests.people import handle, is_in, is_out, key_of, sign_in
from tests.store import travel
from tests.urls import urlpatterns as site

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.transports("cookie", "header"),
]


BOTH = {"new_password1": "better", "new_password2": "better"}
WEAK = f"{__name__}.WeakHasher"


class WeakHasher(MD5PasswordHasher):
    algorithm = "weak"


# Views of a project, with ways of their own to change an account.


def change_in_passing(request):
    """Knows whom it is about by other means, a token say, and has no use for the session."""
    user = User.objects.get(username=request.GET["who"])
    user.set_password("better")
    user.save()
    return HttpResponse("changed")


def change_in_session(request):
    """Uses the session, and does not ask who is signed in."""
    request.session.get("")
    return change_in_passing(request)


def change_as_token(request):
    """Has put somebody of its own into the request, as APIs do."""
    request.user = SimpleNamespace(pk=1, is_authenticated=True)
    return change_in_session(request)


async def achange(request):
    user = await request.auser()
    user.set_password("better")
    await user.asave()
    request.user = user  # aupdate_session_auth_hash() of Django 5.2 needs it, and cannot get it
    await aupdate_session_auth_hash(request, user)
    return HttpResponse("changed")


def sign_in_and_change(request):
    user = User.objects.get(username="alice")
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    user.set_password("better")
    user.save()
    update_session_auth_hash(request, user)
    return HttpResponse("changed")


def leave_and_delete(request):
    """Deletes who is signed in, and then somebody else."""
    User.objects.get(pk=request.user.pk).delete()
    request.user.pk = None  # as delete() leaves it
    User.objects.get(username="alice").delete()
    return HttpResponse("gone")


urlpatterns = [
    *site,
    path("password/", views.PasswordChangeView.as_view()),
    path("password/done/", views.PasswordChangeDoneView.as_view(), name="password_change_done"),
    path("reset/", views.PasswordResetView.as_view()),
    path("reset/sent/", views.PasswordResetDoneView.as_view(), name="password_reset_done"),
    path(
        "reset/<uidb64>/<token>/",
        views.PasswordResetConfirmView.as_view(),
        name="password_reset_confirm",
    ),
    path("reset/done/", views.PasswordResetCompleteView.as_view(), name="password_reset_complete"),
    path("change_in_passing/", change_in_passing),
    path("change_in_session/", change_in_session),
    path("change_as_token/", change_as_token),
    path("achange/", achange),
    path("sign_in_and_change/", sign_in_and_change),
    path("leave_and_delete/", leave_and_delete),
]


# The password.


@pytest.mark.standard("ASVS-7.4.3")
def test_who_changes_the_password_stays_and_the_others_go(alice, bob, ended):
    laptop, phone, office, other = sign_in(alice), sign_in(alice), sign_in(alice), sign_in(bob)
    here, gone = handle(laptop), {handle(phone), handle(office)}
    key = key_of(laptop)
    assert press(laptop, "/password/", old_password="secret", **BOTH).status_code == 302
    # At once: nobody has used them since.
    assert rows(*gone) == {(EndReason.PASSWORD_CHANGE, alice, True)}
    assert ended == [(gone, EndReason.PASSWORD_CHANGE, alice)]
    assert alive() == {here, handle(other)}
    assert is_in(laptop, alice)
    assert key_of(laptop) != key
    assert handle(laptop) == here
    assert listed(laptop) == [here]
    assert is_out(phone, CHANGED)
    assert is_out(office, CHANGED)
    assert is_in(other, bob)
    assert is_in(sign_in(alice, password="better"), alice)


def test_the_same_with_the_middleware_of_django(settings, alice, ended):
    """Nobody says there which request it is: it is the session that was loaded last."""
    settings.MIDDLEWARE = [
        name.replace("django_sessionkit.middleware", "django.contrib.sessions.middleware")
        for name in settings.MIDDLEWARE
    ]
    laptop, phone = sign_in(alice), sign_in(alice)
    here, gone = handle(laptop), handle(phone)
    assert press(laptop, "/password/", old_password="secret", **BOTH).status_code == 302
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, None)]
    assert is_in(laptop, alice)
    assert handle(laptop) == here
    assert not is_in(phone, alice)


def test_the_same_in_an_async_view(alice, ended):
    laptop, phone = AsyncClient(headers=PAGE), sign_in(alice)
    get = async_to_sync(laptop.get)
    async_to_sync(laptop.aforce_login)(alice)
    here, gone = handle(laptop), handle(phone)
    assert get("/achange/").content == b"changed"
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, alice)]
    assert get("/whoami/").content == b"alice"
    assert alive() == {here}
    assert is_out(phone, CHANGED)


@pytest.mark.standard("ASVS-7.4.3")
def test_a_password_that_is_reset_by_mail_ends_all(alice, ended):
    laptop, phone, stranger = sign_in(alice), sign_in(alice), Client(headers=PAGE)
    gone = {handle(laptop), handle(phone)}
    press(stranger, "/reset/", email=alice.email)
    (url,) = re.findall(r"http://testserver(/reset/\S+)", mail.outbox[0].body)
    url = stranger.get(url).headers["Location"]  # which leaves the token out
    assert press(stranger, url, **BOTH).status_code == 302
    assert rows(*gone) == {(EndReason.PASSWORD_CHANGE, None, True)}
    assert ended == [(gone, EndReason.PASSWORD_CHANGE, None)]
    assert not alive()
    assert is_out(laptop, CHANGED)
    assert is_out(phone, CHANGED)


@pytest.mark.standard("ASVS-7.4.3")
def test_staff_who_change_the_password_of_another_end_all(alice, root, ended):
    laptop, office = sign_in(alice), sign_in(root)
    gone = handle(laptop)
    fields = {"usable_password": "true", "password1": "better", "password2": "better"}
    page = press(office, f"/admin/auth/user/{alice.pk}/password/", **fields)
    assert page.status_code == 302
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, root)]
    assert rows(gone) == {(EndReason.PASSWORD_CHANGE, root, True)}
    assert is_out(laptop, CHANGED)
    assert is_in(office, root)


def test_staff_who_change_their_own_stay(root, ended):
    office, home = sign_in(root), sign_in(root)
    gone = handle(home)
    fields = {"usable_password": "true", "password1": "better", "password2": "better"}
    press(office, f"/admin/auth/user/{root.pk}/password/", **fields)
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, root)]
    assert is_in(office, root)


def changed_alone(user):
    user.set_password("better")
    user.save(update_fields=["password"])


def changed_async(user):
    user.set_password("better")
    async_to_sync(user.asave)()


def changed_when_deferred(user):
    user = User.objects.only("password").get(pk=user.pk)
    user.set_password("better")
    user.save()


def changed_by_a_new_object(user):
    """The form of an importer, say."""
    new = User(pk=user.pk, username=user.username)
    new.set_password("better")
    new.save()


def made_unusable(user):
    user.set_unusable_password()
    user.save()


@pytest.mark.parametrize(
    "change",
    [
        changed,
        changed_alone,
        changed_async,
        changed_when_deferred,
        changed_by_a_new_object,
        made_unusable,
    ],
)
def test_a_password_that_code_changes_ends_all(alice, bob, ended, change):
    laptop, other = sign_in(alice), sign_in(bob)
    gone = handle(laptop)
    change(alice)
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, None)]
    assert rows(gone) == {(EndReason.PASSWORD_CHANGE, None, True)}
    assert alive() == {handle(other)}
    assert is_out(laptop, CHANGED)


def test_a_password_that_is_not_saved_ends_nothing(alice, ended):
    laptop = sign_in(alice)
    alice.set_password("better")
    alice.save(update_fields=["is_staff"])
    alice.save(update_fields=["first_name"])
    assert not ended
    assert is_in(laptop, alice)


def test_a_save_that_fails_ends_nothing_now_or_later(alice, bob, ended):
    laptop = sign_in(alice)
    alice.set_password("better")
    alice.username = bob.username
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"), transaction.atomic():
        alice.save()
    alice.first_name = "Alice"
    alice.save(update_fields=["first_name"])
    assert not ended
    assert is_in(laptop, User.objects.get(pk=alice.pk))


def test_a_change_that_is_taken_back_ends_nothing(alice):
    """On the database. In Redis there are no transactions: its sessions stay gone."""
    laptop = sign_in(alice)
    here = handle(laptop)
    with transaction.atomic():
        changed(alice)
        transaction.set_rollback(True)
    assert rows(here) == {("", None, False)}
    assert alive() == (set() if store.APART else {here})
    assert is_in(laptop, alice) is not store.APART


def test_fixtures_are_loaded_as_they_are(alice, ended):
    laptop = sign_in(alice)
    alice.set_password("better")
    alice.is_active = False
    (loaded,) = serializers.deserialize("json", serializers.serialize("json", [alice]))
    loaded.save()
    assert not ended
    # Of the password, Django knows; see below for what does not read request.user.
    assert not is_in(laptop, alice)


def test_a_project_has_its_own_idea_of_what_ends_sessions(alice, monkeypatch, ended):
    monkeypatch.setattr(User, "get_session_auth_hash", lambda user: f"of {user.email}")
    laptop = sign_in(alice)
    gone = handle(laptop)
    with CaptureQueriesContext(connection) as queries:
        alice.save(update_fields=["last_login"])
    assert len(queries) == 1
    alice.set_password("better")
    alice.save(update_fields=["password"])
    assert not ended
    alice.email = "alice@example.net"
    alice.save(update_fields=["email"])
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, None)]
    assert is_out(laptop, CHANGED)


# Hashes that become stronger at a sign-in.


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_stronger_hash_at_a_sign_in_leaves_no_ghosts(alice, ended, settings, is_async):
    """Django refuses the other sessions: what it compares comes from the hash."""
    stronger = settings.PASSWORD_HASHERS
    settings.PASSWORD_HASHERS = [WEAK, *stronger]
    alice.set_password("secret")
    alice.save()
    phone = sign_in(alice)
    gone = handle(phone)
    settings.PASSWORD_HASHERS = [*stronger, WEAK]
    visitor = AsyncClient() if is_async else Client()
    post = async_to_sync(visitor.post) if is_async else visitor.post
    get = async_to_sync(visitor.get) if is_async else visitor.get
    post("/write/", {"cart": "teapot"})
    assert post("/login/", {"username": "alice", "password": "secret"}).status_code == 302
    assert not User.objects.get().password.startswith("weak")
    assert get("/whoami/").content == b"alice"
    assert get("/read/").json() == {"cart": "teapot"}
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, None)]
    assert alive() == {handle(visitor)}
    assert is_out(phone, CHANGED)


def test_a_stronger_hash_when_the_same_browser_signs_in_again(alice, settings):
    stronger = settings.PASSWORD_HASHERS
    settings.PASSWORD_HASHERS = [WEAK, *stronger]
    changed(alice)
    laptop = sign_in(alice, password="better")
    settings.PASSWORD_HASHERS = [*stronger, WEAK]
    press(laptop, "/login/", username="alice", password="better")
    assert is_in(laptop, alice)
    assert alive() == {handle(laptop)}


def locks(user, request):
    return Policy(idle=3600, lock=True)


@pytest.mark.parametrize("is_locked", [True, False], ids=["locked", "open"])
def test_a_stronger_hash_when_somebody_proves_who_they_are(alice, settings, is_locked):
    settings.SESSIONKIT_POLICY = f"{__name__}.locks"
    stronger = settings.PASSWORD_HASHERS
    settings.PASSWORD_HASHERS = [WEAK, *stronger]
    changed(alice)
    laptop, phone = sign_in(alice, password="better"), sign_in(alice, password="better")
    here = handle(laptop)
    settings.PASSWORD_HASHERS = [*stronger, WEAK]
    with travel(timedelta(hours=2 if is_locked else 0)):
        page = press(laptop, PROVE, password="better")
        assert page.status_code == 302
        assert not User.objects.get().password.startswith("weak")
        assert is_in(laptop, alice)
        assert alive() == {here}
        assert is_out(phone, CHANGED)


# Who the current one is, and who did it.


def test_a_cookie_that_nobody_has_looked_at_proves_nothing(alice, ended):
    laptop = sign_in(alice)
    gone = handle(laptop)
    assert laptop.get("/change_in_passing/?who=alice").text == "changed"
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, None)]
    assert is_out(laptop, CHANGED)


def test_to_look_for_the_current_one_costs_nothing(alice, bob):
    laptop = sign_in(bob)
    with CaptureQueriesContext(connection) as with_cookie:
        laptop.get("/change_in_passing/?who=alice")
    with CaptureQueriesContext(connection) as without:
        Client().get("/change_in_passing/?who=alice")
    assert len(with_cookie) == len(without)
    assert is_in(laptop, bob)


def test_somebody_else_who_is_signed_in_stays(alice, bob, ended):
    phone, laptop = sign_in(alice), sign_in(bob)
    gone = handle(phone)
    laptop.get("/change_in_session/?who=alice")
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, None)]
    assert is_in(laptop, bob)


@pytest.mark.parametrize("name", ["change_in_session", "change_as_token"])
def test_nobody_is_asked_who_did_it(alice, ended, name):
    """Django would sign them out: their session does not go with the new password yet."""
    laptop, phone = sign_in(alice), sign_in(alice)
    here, gone = handle(laptop), handle(phone)
    assert laptop.get(f"/{name}/?who=alice").text == "changed"
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, None)]
    assert rows(gone) == {(EndReason.PASSWORD_CHANGE, None, True)}
    assert alive() == {here}


def test_who_has_just_signed_in_did_it(alice, ended):
    phone = sign_in(alice)
    gone = handle(phone)
    laptop = Client()
    laptop.get("/sign_in_and_change/")
    assert (gone in ended[0][0], ended[0][1:]) == (True, (EndReason.PASSWORD_CHANGE, alice))
    assert is_in(laptop, alice)


def test_who_has_just_been_deleted_is_nobody(alice, bob, ended):
    phone, laptop = sign_in(alice), sign_in(bob)
    hers, his = handle(phone), handle(laptop)
    assert laptop.get("/leave_and_delete/").text == "gone"
    assert [(handles, reason) for handles, reason, _ in ended] == [
        ({his}, EndReason.ACCOUNT_DISABLED),
        ({hers}, EndReason.ACCOUNT_DISABLED),
    ]
    assert ended[1][2] is None
    assert laptop.get("/whoami/").text == "AnonymousUser"

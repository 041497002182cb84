"""What happens to an account ends its sessions: told as stories of people with several browsers."""

import re
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import (
    aupdate_session_auth_hash,
    get_user_model,
    login,
    update_session_auth_hash,
    views,
)
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.hashers import MD5PasswordHasher
from django.contrib.auth.models import Group, Permission
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.signed_cookies import SessionStore as OtherStore
from django.core import mail, serializers
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models.signals import m2m_changed, pre_delete
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_sessionkit import receivers
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from tests import store
from tests.browsers import PAGE
from tests.pages import LIST, PROVE, press
from tests.people import handle, is_in, is_out, key_of, sign_in
from tests.servers import PROJECT
from tests.store import SessionStore, travel
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

User = get_user_model()
CHANGED = "You were signed out because your password was changed."
DISABLED = "You were signed out because your account was disabled."
PRIVILEGES = "You were signed out because what you may do here was changed."
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


def join(request):
    request.user.groups.add(Group.objects.get(name="others"))
    return HttpResponse("welcome")


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
    path("join/", join),
]


def rows(*handles):
    found = UserSession.objects.filter(pk__in=handles)
    return {(row.end_reason, row.ended_by, bool(row.ended_at)) for row in found}


def listed(browser):
    return [row.pk for row in browser.get(LIST).context["object_list"]]


def alive():
    return {row.pk for row in UserSession.objects.alive()}


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


def changed(user):
    user.set_password("better")
    user.save()


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
    with pytest.raises(Exception, match=r"(?i)unique"), transaction.atomic():
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
    assert alive() == (set() if store.ON_REDIS else {here})
    assert is_in(laptop, alice) is not store.ON_REDIS


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


# Disabled.


def disabled(user):
    user.is_active = False
    user.save()


def disabled_alone(user):
    user.is_active = False
    user.save(update_fields=["is_active"])


def disabled_and_changed(user):
    user.is_active = False
    changed(user)


@pytest.mark.standard("ASVS-7.4.2")
@pytest.mark.parametrize("disable", [disabled, disabled_alone, disabled_and_changed])
def test_an_account_that_is_disabled_has_no_sessions_and_gets_none_back(alice, bob, ended, disable):
    laptop, phone, other = sign_in(alice), sign_in(alice), sign_in(bob)
    gone = {handle(laptop), handle(phone)}
    disable(alice)
    assert ended == [(gone, EndReason.ACCOUNT_DISABLED, None)]
    assert rows(*gone) == {(EndReason.ACCOUNT_DISABLED, None, True)}
    assert alive() == {handle(other)}
    alice.is_active = True
    alice.set_password("secret")
    alice.save()
    assert is_out(laptop, DISABLED)
    assert phone.get("/whoami/", headers={"accept": "application/json"}).json() == {
        "detail": DISABLED,
        "reason": "account_disabled",
    }
    assert len(ended) == 1
    assert is_in(sign_in(alice), alice)


@pytest.mark.standard("ASVS-7.4.2")
def test_an_account_that_staff_disable_has_no_sessions(alice, root, ended):
    laptop, office = sign_in(alice), sign_in(root)
    gone = handle(laptop)
    joined = alice.date_joined
    fields = {
        "username": "alice",
        "date_joined_0": f"{joined:%Y-%m-%d}",
        "date_joined_1": f"{joined:%H:%M:%S}",
    }
    page = press(office, f"/admin/auth/user/{alice.pk}/change/", **fields)
    assert page.status_code == 302
    assert not User.objects.get(pk=alice.pk).is_active
    assert ended == [({gone}, EndReason.ACCOUNT_DISABLED, root)]
    assert rows(gone) == {(EndReason.ACCOUNT_DISABLED, root, True)}
    assert is_out(laptop, DISABLED)


def test_who_disables_their_own_account_is_out(root, ended):
    office, home = sign_in(root), sign_in(root)
    gone = {handle(office), handle(home)}
    fields = {"username": "root", "date_joined_0": "2026-01-01", "date_joined_1": "12:00:00"}
    press(office, f"/admin/auth/user/{root.pk}/change/", **fields)
    assert not User.objects.get().is_active
    assert [(handles, reason) for handles, reason, _ in ended] == [
        (gone, EndReason.ACCOUNT_DISABLED)
    ]
    assert is_out(home, DISABLED)


def test_what_was_missed_when_an_account_was_disabled_ends_with_its_next_save(alice, ended):
    laptop = sign_in(alice)
    gone = handle(laptop)
    disabled_by_update(alice)
    User.objects.get().save()
    assert ended == [({gone}, EndReason.ACCOUNT_DISABLED, None)]
    assert is_out(laptop, DISABLED)


def test_a_site_that_lets_disabled_users_in_keeps_their_sessions(alice, ended, settings):
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.AllowAllUsersModelBackend"]
    laptop = sign_in(alice)
    disabled(alice)
    User.objects.update(is_active=False)
    with travel(timedelta(minutes=2)):
        assert is_in(laptop, alice)
        UserSession.objects.purge()
        assert is_in(laptop, alice)
    assert not ended


# What sends no signal.


def deleted_by_sql(user):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM auth_user WHERE id = %s", [user.pk])


def disabled_by_update(user):
    User.objects.filter(pk=user.pk).update(is_active=False)


def disabled_by_bulk_update(user):
    user.is_active = False
    User.objects.bulk_update([user], ["is_active"])


QUIETLY = pytest.mark.parametrize(
    "end", [disabled_by_update, disabled_by_bulk_update, deleted_by_sql]
)


@pytest.mark.standard("ASVS-7.4.2")
@QUIETLY
def test_what_sends_no_signal_is_noticed_within_an_interval(alice, bob, ended, end):
    laptop, other = sign_in(alice), sign_in(bob)
    gone = handle(laptop)
    end(alice)
    assert alive() == {gone, handle(other)}
    with travel(timedelta(seconds=61)):
        # A page that looks at the session alone: Django would not let request.user in anyway.
        page = laptop.get("/read/", follow=True)
    assert DISABLED in page.text
    assert ended == [({gone}, EndReason.ACCOUNT_DISABLED, None)]
    assert [row.end_reason for row in UserSession.objects.filter(pk=gone)] == ["account_disabled"]
    assert alive() == {handle(other)}
    # It is gone from the store, too.
    User.objects.filter(pk=alice.pk).update(is_active=True)
    assert laptop.get("/whoami/").text == "AnonymousUser"


@pytest.mark.standard("ASVS-7.4.2")
@QUIETLY
def test_what_sends_no_signal_is_put_right_by_the_purge(alice, bob, ended, end):
    laptop, other = sign_in(alice), sign_in(bob)
    gone = handle(laptop)
    end(alice)
    call_command("clearsessions", verbosity=0)
    assert [row.end_reason for row in UserSession.objects.filter(pk=gone)] == ["account_disabled"]
    assert ended == [({gone}, EndReason.ACCOUNT_DISABLED, None)]
    assert alive() == {handle(other)}
    assert len(store.payloads()) == 1
    User.objects.filter(pk=alice.pk).update(is_active=True)
    assert is_out(laptop, DISABLED)
    assert is_in(other, bob)


def test_a_password_that_is_changed_without_a_signal_ends_all_within_an_interval(alice, ended):
    laptop = sign_in(alice)
    gone = handle(laptop)
    alice.set_password("better")
    User.objects.update(password=alice.password)
    with travel(timedelta(seconds=61)):
        page = laptop.get("/read/", follow=True)
    assert CHANGED in page.text
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, None)]


# Deleted.


def deleted_by_staff(user):
    office = sign_in(User.objects.create_superuser("root", password="secret"))
    page = press(office, f"/admin/auth/user/{user.pk}/delete/", post="yes")
    assert page.status_code == 302
    assert is_in(office, User.objects.get(username="root"))


@pytest.mark.standard("ASVS-7.4.2")
@pytest.mark.parametrize(
    "delete",
    [
        lambda user: User.objects.get(pk=user.pk).delete(),
        lambda user: User.objects.filter(username="alice").delete(),
        deleted_by_staff,
    ],
    ids=["instance", "queryset", "staff"],
)
def test_a_user_who_is_deleted_takes_the_sessions_along(alice, bob, ended, delete):
    laptop, phone, other = sign_in(alice), sign_in(alice), sign_in(bob)
    gone = {handle(laptop), handle(phone)}
    delete(alice)
    ((handles, reason, _by),) = ended
    assert (handles, reason) == (gone, EndReason.ACCOUNT_DISABLED)
    assert not UserSession.objects.filter(user=alice.pk).exists()
    # They were taken from the store while somebody knew of them.
    known = UserSession.objects.values_list("digest", flat=True)
    assert set(store.payloads()) == {*known}
    assert laptop.get("/whoami/").text == "AnonymousUser"
    assert is_in(other, bob)


@pytest.mark.parametrize(
    "delete", [lambda user: User.objects.get(pk=user.pk).delete(), deleted_by_sql]
)
def test_a_new_user_with_the_key_of_a_deleted_one_inherits_nothing(alice, delete):
    laptop = sign_in(alice)
    delete(alice)
    carol = User.objects.create_user("carol", password="secret", pk=alice.pk)
    assert laptop.get("/whoami/").text == "AnonymousUser"
    with travel(timedelta(seconds=61)):
        assert laptop.get("/read/").json() == {}
        assert laptop.get("/whoami/").text == "AnonymousUser"
    assert listed(sign_in(carol)) != []
    assert len(alive()) == 1


# What they may do.


def ends(user, request):
    return Policy(on_privilege_change="end")


def renews(user, request):
    return Policy(on_privilege_change="renew")


def keeps(user, request):
    return Policy(on_privilege_change="keep")


def flag(name, value, **kwargs):
    def change(place):
        setattr(place.alice, name, value)
        place.alice.save(**kwargs)

    return change


CHANGES = {
    "joins": lambda at: at.alice.groups.add(at.others),
    "is let in": lambda at: at.others.user_set.add(at.alice),
    "leaves": lambda at: at.alice.groups.remove(at.editors),
    "is put out": lambda at: at.editors.user_set.remove(at.alice),
    "leaves all": lambda at: at.alice.groups.clear(),
    "all are put out": lambda at: at.editors.user_set.clear(),
    "moves": lambda at: at.alice.groups.set([at.others]),
    "nobody is left": lambda at: at.editors.user_set.set([]),
    "may add": lambda at: at.alice.user_permissions.add(at.may_add),
    "is one who may add": lambda at: at.may_add.user_set.add(at.alice),
    "may view no more": lambda at: at.alice.user_permissions.remove(at.may_view),
    "is none who may view": lambda at: at.may_view.user_set.remove(at.alice),
    "may nothing": lambda at: at.alice.user_permissions.clear(),
    "nobody may view": lambda at: at.may_view.user_set.clear(),
    "group may add": lambda at: at.editors.permissions.add(at.may_add),
    "is of a group that may add": lambda at: at.may_add.group_set.add(at.editors),
    "group may delete no more": lambda at: at.editors.permissions.remove(at.may_delete),
    "is of no group that may delete": lambda at: at.may_delete.group_set.remove(at.editors),
    "group may nothing": lambda at: at.editors.permissions.clear(),
    "no group may delete": lambda at: at.may_delete.group_set.clear(),
    "group may other things": lambda at: at.editors.permissions.set([at.may_add]),
    "group is deleted": lambda at: at.editors.delete(),
    "groups are deleted": lambda at: Group.objects.all().delete(),
    "is staff": flag("is_staff", True),
    "is superuser": flag("is_superuser", True, update_fields=["is_superuser"]),
}


@pytest.fixture
def place(alice, bob):
    """Alice may view, and delete as one of the editors; there are others, who may nothing."""
    permissions = Permission.objects.filter(content_type__model="user")
    at = SimpleNamespace(
        alice=alice,
        bystander=bob,
        editors=Group.objects.create(name="editors"),
        others=Group.objects.create(name="others"),
        may_view=permissions.get(codename="view_user"),
        may_add=permissions.get(codename="add_user"),
        may_delete=permissions.get(codename="delete_user"),
    )
    alice.user_permissions.add(at.may_view)
    alice.groups.add(at.editors)
    at.editors.permissions.add(at.may_delete)
    return at


@pytest.mark.standard("ASVS-8.3.2")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("policy", [ends, renews, keeps])
def test_what_somebody_may_do_changes(place, settings, ended, policy, change):
    settings.SESSIONKIT_POLICY = f"{__name__}.{policy.__name__}"
    laptop, phone, other = (sign_in(user) for user in (place.alice, place.alice, place.bystander))
    hers, his = {handle(laptop), handle(phone)}, handle(other)
    change(place)
    found = UserSession.objects.filter(pk__in=hers)
    if policy is ends:
        assert ended == [(hers, EndReason.PRIVILEGE_CHANGE, None)]
        assert rows(*hers) == {(EndReason.PRIVILEGE_CHANGE, None, True)}
        assert alive() == {his}
        assert is_out(laptop, PRIVILEGES)
        assert is_out(phone, PRIVILEGES)
        return
    assert not ended
    assert set(found.values_list("renew", flat=True)) == {policy is renews}
    assert not UserSession.objects.get(pk=his).renew
    keys = {key_of(laptop), key_of(phone)}
    with travel(timedelta(seconds=61)):
        for browser in (laptop, phone):
            assert is_in(browser, place.alice)
            assert is_in(browser, place.alice)
    assert {handle(laptop), handle(phone)} == hers
    new = {key_of(laptop), key_of(phone)} - keys
    assert len(new) == (2 if policy is renews else 0)
    assert not found.filter(renew=True).exists()


@pytest.mark.parametrize(
    "act",
    [
        lambda at: at.alice.groups.add(at.editors),
        lambda at: at.editors.user_set.add(at.alice),
        lambda at: at.alice.groups.set([at.editors]),
        lambda at: at.alice.groups.remove(at.others),
        lambda at: at.others.user_set.remove(at.alice),
        lambda at: at.others.user_set.clear(),
        lambda at: at.alice.user_permissions.add(at.may_view),
        lambda at: at.alice.user_permissions.remove(at.may_add),
        lambda at: at.may_add.user_set.clear(),
        lambda at: at.editors.permissions.add(at.may_delete),
        lambda at: at.editors.permissions.remove(at.may_add),
        lambda at: at.others.permissions.add(at.may_add),
        lambda at: at.others.delete(),
        lambda at: at.alice.save(),
        flag("is_staff", False, update_fields=["is_staff"]),
        flag("is_staff", True, update_fields=["first_name"]),
    ],
)
def test_what_changes_nothing_ends_nothing(place, settings, ended, act):
    settings.SESSIONKIT_POLICY = f"{__name__}.ends"
    laptop = sign_in(place.alice)
    act(place)
    assert not ended
    assert is_in(laptop, place.alice)


def test_who_gets_into_a_group_stays_with_a_new_key(place, settings, ended):
    settings.SESSIONKIT_POLICY = f"{__name__}.ends"
    laptop, phone = sign_in(place.alice), sign_in(place.alice)
    here, gone, key = handle(laptop), handle(phone), key_of(laptop)
    assert laptop.get("/join/").text == "welcome"
    assert ended == [({gone}, EndReason.PRIVILEGE_CHANGE, place.alice)]
    assert is_out(phone, PRIVILEGES)
    with travel(timedelta(seconds=61)):
        assert is_in(laptop, place.alice)
        assert is_in(laptop, place.alice)
    assert (handle(laptop), key_of(laptop) != key) == (here, True)


@pytest.mark.parametrize("is_staff", [False, True], ids=["leaves", "joins"])
def test_who_joins_or_leaves_the_staff_signs_in_again(alice, ended, is_staff):
    """Their sessions are those of somebody else: what holds for staff is stricter."""
    alice.is_staff = not is_staff
    alice.save()
    laptop = sign_in(alice)
    gone = handle(laptop)
    alice.is_staff = is_staff
    alice.save()
    assert ended == [({gone}, EndReason.PRIVILEGE_CHANGE, None)]
    assert is_out(laptop, PRIVILEGES)


def test_the_password_and_what_they_may_do_change_at_once(alice, ended):
    laptop = sign_in(alice)
    gone = handle(laptop)
    alice.is_staff = True
    changed(alice)
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, None)]


def asked(user, request):
    ASKED.append(user)
    return Policy(on_privilege_change="end" if user.username == "bob" else "renew")


ASKED: list[AbstractBaseUser] = []


def test_a_group_with_many_members_costs_little(place, settings, monkeypatch, ended):
    """Who is not signed in is not asked about, and what is done is done for many at a time."""
    people = [User(username=f"user {number}") for number in range(5)]
    place.others.user_set.set(User.objects.bulk_create(people))
    bob = place.bystander
    place.others.user_set.add(place.alice, bob)
    laptop, phone, other = sign_in(place.alice), sign_in(place.alice), sign_in(bob)
    hers, his = {handle(laptop), handle(phone)}, handle(other)
    settings.SESSIONKIT_POLICY = f"{__name__}.asked"
    ASKED.clear()
    with CaptureQueriesContext(connection) as queries:
        place.others.permissions.add(place.may_add)
    assert {*ASKED} == {place.alice, bob}
    assert set(UserSession.objects.filter(renew=True).values_list("pk", flat=True)) == hers
    assert ended == [({his}, EndReason.PRIVILEGE_CHANGE, None)]
    assert len([query for query in queries if '"renew" = ' in query["sql"]]) == 1

    monkeypatch.setattr(receivers, "ROWS", 2)
    UserSession.objects.update(renew=False)
    ASKED.clear()
    place.others.permissions.clear()
    assert [user.username for user in ASKED] == ["alice"]
    assert set(UserSession.objects.filter(renew=True).values_list("pk", flat=True)) == hers


# A store that is down.


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (changed, EndReason.PASSWORD_CHANGE),
        (disabled, EndReason.ACCOUNT_DISABLED),
        (lambda user: user.groups.add(Group.objects.create()), EndReason.PRIVILEGE_CHANGE),
    ],
)
def test_a_store_that_is_down_is_no_reason_to_keep_an_account(
    alice, settings, ended, store_down, monkeypatch, caplog, end, reason
):
    settings.SESSIONKIT_POLICY = f"{__name__}.ends"
    laptop = sign_in(alice)
    gone = handle(laptop)
    end(alice)
    assert "The session store did not answer: no route to host" in caplog.text
    assert rows(gone) == {(reason, None, True)}
    assert ended == [({gone}, reason, None)]
    monkeypatch.undo()
    with travel(timedelta(seconds=61)):
        assert "You were signed out because" in laptop.get("/read/", follow=True).text
    assert not store.payloads()


def test_a_store_that_is_down_is_no_reason_to_keep_a_user(alice, store_down, monkeypatch):
    laptop = sign_in(alice)
    alice.delete()
    assert not User.objects.exists()
    monkeypatch.undo()
    assert laptop.get("/whoami/").text == "AnonymousUser"
    with travel(timedelta(seconds=61)):
        assert laptop.get("/read/").json() == {}
    assert not store.payloads()


# What it costs.


@pytest.mark.parametrize(
    ("update_fields", "more"),
    [
        (["last_login"], 0),
        (["first_name", "email"], 0),
        (["password", "last_login"], 1),
        (["is_active"], 1),
        (None, 1),
    ],
)
def test_a_save_that_ends_nothing_costs_a_query_at_most(alice, update_fields, more):
    sign_in(alice)
    with CaptureQueriesContext(connection) as queries:
        alice.save(update_fields=update_fields)
    assert len(queries) == 1 + more


def test_a_user_who_is_new_costs_nothing():
    with CaptureQueriesContext(connection) as queries:
        User.objects.create(username="alice")
    assert len(queries) == 1


def test_nothing_is_left_on_the_object(alice):
    for update_fields in (None, ["password"], ["first_name"]):
        alice.save(update_fields=update_fields)
        assert not [name for name in vars(alice) if "sessionkit" in name]


@pytest.mark.once
def test_other_models_are_as_fast_as_before():
    """Django deletes row by row, and adds to many-to-many fields slowly, where somebody listens."""
    assert pre_delete.has_listeners(User)
    assert m2m_changed.has_listeners(User.groups.through)
    for model in (Permission, UserSession, User.groups.through):
        assert not pre_delete.has_listeners(model)
    assert not m2m_changed.has_listeners(Permission)


# Signing in.


def test_the_user_who_signs_in_is_handed_to_the_session(alice):
    request = RequestFactory().get("/")
    request.session = SessionStore()
    login(request, alice)
    assert request.session.signing_in is alice


@pytest.mark.parametrize("session", [{}, OtherStore()], ids=["none", "of another engine"])
def test_a_sign_in_with_another_kind_of_session_is_left_alone(alice, session):
    user_logged_in.send(User, request=SimpleNamespace(session=session), user=alice)


# A project's own users.

PEOPLE = """
import uuid

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, Group, PermissionsMixin
from django.db import models


class Person(BASES):
    uid = models.UUIDField(primary_key=True, default=uuid.uuid4)
    telephone = models.CharField(max_length=20, unique=True)
    state = models.CharField(max_length=20, default="fine")
    USERNAME_FIELD = "telephone"
    objects = BaseUserManager()

    @property
    def is_active(self):
        return self.state != "gone"


class Guest(Person):
    class Meta:
        proxy = True


class Employee(Person):
    number = models.AutoField(primary_key=True)
    person = models.OneToOneField(Person, models.CASCADE, parent_link=True)


class Team(Group):
    class Meta:
        proxy = True
"""

SITE = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of a test",
    USE_TZ=True,
    AUTH_USER_MODEL="people.Person",
    SESSION_ENGINE="django_sessionkit.backends.db",
    INSTALLED_APPS=[
        "people",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django_sessionkit",
    ],
    # Without migrations, so that Team can be there.
    MIGRATION_MODULES={"auth": None, "contenttypes": None, "django_sessionkit": None},
    DATABASES={
        name: {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{name}.sqlite3"}
        for name in ("default", "archive")
    },
)
django.setup()

from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_sessionkit.models import StoredSession, UserSession
from people.models import Employee, Guest, Person, Team

for name in ("default", "archive"):
    call_command("migrate", database=name, run_syncdb=True, verbosity=0)


def sign_in(person):
    Client().force_login(person)
    return UserSession.objects.latest("pk")


def reason(session):
    session.refresh_from_db()
    return session.end_reason


# Another database is another matter.
ann = Person.objects.create(telephone="1")
ann.save(using="archive")
ann.set_password("secret")
ann.save(using="default")
session = sign_in(ann)
Person.objects.using("archive").get().save()
assert reason(session) == ""

# What somebody is, is computed.
with CaptureQueriesContext(connection) as queries:
    ann.save(using="default", update_fields=["last_login"])
assert len(queries) == 1, queries.captured_queries
ann.state = "gone"
ann.save(using="default", update_fields=["state"])
assert reason(session) == "account_disabled"
ann.state = "fine"
ann.save(using="default")

# By a proxy.
session = sign_in(ann)
guest = Guest.objects.get()
guest.set_password("better")
guest.save()
assert reason(session) == "password_change"
sign_in(ann)
guest.delete()
assert not UserSession.objects.exists()
assert not StoredSession.objects.exists()

# By a child, which has a key of its own.
stranger = Person.objects.create(telephone="2")
Employee.objects.create(telephone="3")
employee = Employee.objects.create(telephone="4")
assert employee.pk != employee.uid
session, other = sign_in(Person.objects.get(telephone="4")), sign_in(stranger)
employee.set_password("secret")
employee.save()
assert reason(session) == "password_change"
session = sign_in(Person.objects.get(telephone="4"))
employee.delete(keep_parents=True)
assert reason(session) == ""
sign_in(Person.objects.get(telephone="3"))
Employee.objects.get().delete()
assert StoredSession.objects.count() == 2
assert reason(session) == reason(other) == ""

# By a proxy of their group.
if hasattr(Person, "groups"):
    team = Team.objects.create(name="team")
    stranger.groups.add(team)
    assert UserSession.objects.get(renew=True) == other
    UserSession.objects.update(renew=False)
    team.delete()
    assert UserSession.objects.get(renew=True) == other
    employee = Employee.objects.create(telephone="5")
    session = sign_in(Person.objects.get(telephone="5"))
    employee.groups.add(Team.objects.create(name="new team"))
    session.refresh_from_db()
    assert session.renew
"""


@pytest.mark.once
@pytest.mark.parametrize("bases", ["AbstractBaseUser", "AbstractBaseUser, PermissionsMixin"])
def test_users_of_another_model(tmp_path, bases):
    """With and without groups."""
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "__init__.py").touch()
    (tmp_path / "people" / "models.py").write_text(PEOPLE.replace("BASES", bases))
    (tmp_path / "project.py").write_text(SITE)
    done = subprocess.run(
        [sys.executable, "-W", "error", "project.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout

"""An account that is disabled or deleted has no sessions: told as stories of people with several
browsers."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.contrib.auth import login
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Group, Permission, User
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.signed_cookies import SessionStore as OtherStore
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection
from django.db.models.signals import m2m_changed, pre_delete
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.purging import purge
from tests import store
from tests.accounts import CHANGED, DISABLED, alive, changed, disabled, listed, rows
from tests.browsers import SCRIPT
from tests.pages import press
from tests.people import handle, is_in, is_out, sign_in
from tests.store import SessionStore, travel

pytestmark = [pytest.mark.django_db, pytest.mark.transports("cookie", "header")]


# Disabled.


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
    assert phone.get("/private/", headers=SCRIPT).json() == {
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
        purge()
        assert is_in(laptop, alice)
    assert not ended


class NotConfigured(ModelBackend):
    """As that of mozilla-django-oidc, where its settings are missing."""

    def __init__(self):
        raise ImproperlyConfigured


def test_an_account_can_be_disabled_while_a_backend_lacks_its_settings(alice, ended, settings):
    laptop = sign_in(alice)
    gone = handle(laptop)
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.NotConfigured"]
    disabled(alice)
    assert not User.objects.get().is_active
    assert ended == [({gone}, EndReason.ACCOUNT_DISABLED, None)]


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
        assert laptop.get("/read/").json() == {}
    assert DISABLED in laptop.get("/login/").text
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
        assert laptop.get("/read/").json() == {}
    assert CHANGED in laptop.get("/login/").text
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
    settings.SESSIONKIT_POLICY = "tests.policies.ends"
    laptop = sign_in(alice)
    gone = handle(laptop)
    end(alice)
    assert "The session store did not answer: no route to host" in caplog.text
    assert rows(gone) == {(reason, None, True)}
    assert ended == [({gone}, reason, None)]
    monkeypatch.undo()
    with travel(timedelta(seconds=61)):
        assert laptop.get("/read/").json() == {}
    assert "You were signed out because" in laptop.get("/login/").text
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

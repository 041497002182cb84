"""What somebody may do is changed: their sessions end, renew their keys, or go on as they are."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import Group, Permission, User
from django.core import serializers
from django.core.management import call_command
from django.db import connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_sessionkit import ranges
from django_sessionkit.models import EndReason, UserSession
from django_sessionkit.policy import Policy
from tests.accounts import alive, changed, rows
from tests.people import handle, is_in, is_out, key_of, sign_in
from tests.policies import ends
from tests.store import travel
from tests.urls import urlpatterns as site

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.transports("cookie", "header"),
]


PRIVILEGES = "You were signed out because what you may do here was changed."


def join(request):
    request.user.groups.add(Group.objects.get(name="others"))
    return HttpResponse("welcome")


urlpatterns = [*site, path("join/", join)]


def renews(user, request):
    return Policy(on_privilege_change="renew")


def keeps(user, request):
    return Policy(on_privilege_change="keep")


def flag(name, value, **kwargs):
    def change(place):
        setattr(place.alice, name, value)
        place.alice.save(**kwargs)

    return change


WAYS_TO_CHANGE = {
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
@pytest.mark.parametrize("change", WAYS_TO_CHANGE.values(), ids=WAYS_TO_CHANGE)
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
def test_who_joins_or_leaves_the_staff_stays_signed_in(alice, ended, is_staff):
    alice.is_staff = not is_staff
    alice.save()
    laptop = sign_in(alice)
    key = key_of(laptop)
    alice.is_staff = is_staff
    alice.save()
    with travel(timedelta(seconds=61)):
        assert is_in(laptop, alice)
    assert key_of(laptop) != key
    assert not ended


def test_who_is_made_staff_in_a_test_sees_the_admin(alice, client):
    client.force_login(alice)
    alice.is_staff = True
    alice.save()
    assert client.get("/admin/").status_code == 200


# Fixtures.


@pytest.fixture
def fixture(tmp_path):
    """A function that writes these objects to a fixture, as they are now. Return its path."""

    def fixture(*objects):
        path = tmp_path / "fixture.json"
        path.write_text(serializers.serialize("json", objects))
        return str(path)

    return fixture


@pytest.mark.parametrize("policy", [ends, renews])
def test_a_fixture_of_groups_that_is_loaded_ends_nothing(place, settings, ended, fixture, policy):
    settings.SESSIONKIT_POLICY = f"{__name__}.{policy.__name__}"
    place.editors.permissions.set([place.may_add])
    place.alice.groups.set([place.others])
    place.alice.user_permissions.clear()
    path = fixture(place.editors, place.others, place.alice)
    place.editors.permissions.set([place.may_delete])
    place.alice.groups.set([place.editors])
    place.alice.user_permissions.set([place.may_view])
    laptop = sign_in(place.alice)
    call_command("loaddata", path, verbosity=0)
    assert [*place.alice.groups.all()] == [place.others]
    assert [*place.editors.permissions.all()] == [place.may_add]
    assert not ended
    assert not UserSession.objects.get().renew
    assert is_in(laptop, place.alice)


def test_what_is_saved_after_a_fixture_counts(place, settings, ended, fixture):
    """The same object, saved by code: it is no fixture any more."""
    settings.SESSIONKIT_POLICY = f"{__name__}.ends"
    gone = handle(sign_in(place.alice))
    (found,) = serializers.deserialize("json", serializers.serialize("json", [place.editors]))
    found.save()
    assert not ended
    found.object.save()
    found.object.permissions.add(place.may_add)
    assert ended == [({gone}, EndReason.PRIVILEGE_CHANGE, None)]


def test_the_password_and_what_they_may_do_change_at_once(alice, ended):
    laptop = sign_in(alice)
    gone = handle(laptop)
    alice.is_staff = True
    changed(alice)
    assert ended == [({gone}, EndReason.PASSWORD_CHANGE, None)]


def ends_bobs(user, request):
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
    settings.SESSIONKIT_POLICY = f"{__name__}.ends_bobs"
    ASKED.clear()
    with CaptureQueriesContext(connection) as queries:
        place.others.permissions.add(place.may_add)
    assert {*ASKED} == {place.alice, bob}
    assert set(UserSession.objects.filter(renew=True).values_list("pk", flat=True)) == hers
    assert ended == [({his}, EndReason.PRIVILEGE_CHANGE, None)]
    write = f"{connection.ops.quote_name('renew')} = "
    assert len([query for query in queries if write in query["sql"]]) == 1

    monkeypatch.setattr(ranges, "ROWS", 2)
    UserSession.objects.update(renew=False)
    ASKED.clear()
    place.others.permissions.clear()
    assert [user.username for user in ASKED] == ["alice"]
    assert set(UserSession.objects.filter(renew=True).values_list("pk", flat=True)) == hers

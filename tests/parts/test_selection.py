"""Selections of sessions: what they find, on every database, and what text they are made of."""

import ipaddress
import secrets
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection, models
from django.test import override_settings
from django.utils import timezone
from hypothesis import example, given
from hypothesis import strategies as st

from django_sessionkit import accounts, selection
from django_sessionkit.models import (
    DeviceType,
    EndReason,
    Novelty,
    Transport,
    UserSession,
    uuid7,
)
from django_sessionkit.selection import PARSERS, STATES, Selection, search, since, superusers
from tests.people import FIREFOX, row_of, sign_in

pytestmark = pytest.mark.django_db

once = pytest.mark.once
NOW = datetime(2026, 11, 28, 3, tzinfo=UTC)
DAY = timedelta(days=1)


def session(user=None, **columns):
    """Write the row of a session that nobody has."""
    row = {
        "user_id": user.pk if user else 1,
        "digest": secrets.token_hex(32),
        "started_at": NOW,
        "last_seen_at": NOW,
        "expires_at": timezone.now() + DAY,
        "user_agent": FIREFOX,
        **columns,
    }
    return UserSession.objects.create(**row)


def found(**asked):
    return set(Selection.parse(asked).rows())


# Addresses and networks.

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)
# As providers give them: zeros in the middle are common.
HOMES = st.builds(
    lambda groups, zeros, host: ipaddress.IPv6Address(
        int("".join(f"{group:04x}" for group in groups), 16) << 16 * (8 - len(groups))
        | host >> zeros
    ),
    st.lists(st.sampled_from([0x2001, 0xDB8, 0, 1, 0x10, 0xFFFF]), min_size=1, max_size=4),
    st.integers(0, 64),
    st.integers(0, 2**64 - 1),
)


@st.composite
def networks(draw):
    """A network, and addresses in it, beside it and elsewhere."""
    first = draw(st.one_of(V4, V6, HOMES))
    length = draw(
        st.one_of(st.sampled_from([0, 8, 16, 24, 32]), st.integers(0, first.max_prefixlen))
    )
    network = ipaddress.ip_network((first, length), strict=False)
    kind, highest = type(first), 2**first.max_prefixlen - 1
    low, high = int(network[0]), int(network[-1])
    near = [
        low,
        high,
        low - 1,
        high + 1,
        draw(st.integers(low, high)),
        draw(st.integers(low, high)),
    ]
    addresses = [kind(number) for number in near if 0 <= number <= highest]
    return network, [*addresses, *draw(st.lists(st.one_of(V4, V6, HOMES), max_size=4))]


def is_refused(network):
    """Whether a database that has addresses as text can not look for a network."""
    if connection.vendor == "postgresql" or network.version == 4 or network.prefixlen == 128:
        return False
    groups = network.network_address.exploded.split(":")[: network.prefixlen // 16]
    return network.prefixlen % 16 or not groups or "0000" in groups


@given(networks())
@example((ipaddress.ip_network("0.0.0.0/0"), [ipaddress.ip_address("255.255.255.255")]))
@example((ipaddress.ip_network("192.0.2.128/25"), [ipaddress.ip_address("192.0.2.127")]))
@example((ipaddress.ip_network("19.0.0.0/8"), [ipaddress.ip_address("190.0.2.1")]))
@example((ipaddress.ip_network("2001:db8::/32"), [ipaddress.ip_address("2001:db80::1")]))
@example((ipaddress.ip_network("2001:db8::/32"), [ipaddress.ip_address("2001:db8::")]))
@example((ipaddress.ip_network("2001:db8:1::/48"), [ipaddress.ip_address("2001:db8:1::")]))
@example((ipaddress.ip_network("::ffff:192.0.2.0/123"), [ipaddress.ip_address("192.0.2.9")]))
def test_network_finds_exactly_the_addresses_in_it(network_and_addresses):
    network, addresses = network_and_addresses
    rows = [session(ip=str(address)) for address in {*addresses}]
    within = Selection.parse({"network": str(network)}).network
    try:
        if is_refused(within):
            with pytest.raises(ValidationError, match="networks of IPv6 by whole groups"):
                found(network=str(network))
            return
        # What is mapped from IPv4, a column has as that.
        mapped = [getattr(address, "ipv4_mapped", None) or address for address in {*addresses}]
        expected = {row.pk for row, at in zip(rows, mapped, strict=True) if at in within}
        assert {row.pk for row in found(network=str(network))} == expected
    finally:
        UserSession.objects.all().delete()


@pytest.mark.parametrize(
    ("asked", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.77/24", "192.0.2.1"),  # somebody's own address, with the size of the network
        ("192.0.2.0/255.255.255.0", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.0/120", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
    ],
)
def test_one_network_has_several_texts(asked, address):
    here, _elsewhere = session(ip=address), session(ip="198.51.100.7")
    assert found(network=asked) == {here}


# What else can be asked for.


def test_every_kind_of_question(alice, bob, root):
    browser, later = uuid.uuid4(), uuid7(int((NOW + 2 * DAY).timestamp() * 10**9))
    theirs = session(
        alice,
        id=uuid7(int(NOW.timestamp() * 10**9)),
        browser=browser,
        device_type=DeviceType.MOBILE,
        transport=Transport.HEADER,
        novelty=Novelty.DEVICE,
    )
    ended = session(
        root,
        id=later,
        last_seen_at=NOW + 2 * DAY,
        ended_at=NOW + 3 * DAY,
        end_reason=EndReason.REVOKED,
    )
    expired = session(bob, id=uuid.UUID(int=later.int + 1), last_seen_at=NOW + 2 * DAY)
    UserSession.objects.filter(pk=expired.pk).update(expires_at=NOW)
    for asked, expected in [
        ({}, {theirs, ended, expired}),
        ({"users": str(alice.pk)}, {theirs}),
        ({"users": f"{alice.pk},{bob.pk},"}, {theirs, expired}),
        ({"users": ","}, set()),
        ({"users": "0"}, set()),
        ({"users": "-1"}, set()),
        ({"handle": str(theirs.pk)}, {theirs}),
        ({"handle": theirs.pk.hex.upper(), "users": str(bob.pk)}, set()),
        ({"browser": str(browser)}, {theirs}),
        ({"state": "active"}, {theirs}),
        ({"state": "ended"}, {ended, expired}),
        ({"reason": "revoked"}, {ended}),
        ({"device_type": "mobile"}, {theirs}),
        ({"transport": "header"}, {theirs}),
        ({"transport": "cookie"}, {ended, expired}),
        ({"staff": "1"}, {ended}),
        ({"new": "1"}, {theirs}),
        ({"started_after": "2026-11-29"}, {ended, expired}),
        ({"started_before": "2026-11-29"}, {theirs}),
        ({"seen_after": "2026-11-30T03:00Z"}, {ended, expired}),
        ({"seen_before": "2026-11-30T03:00Z"}, {theirs}),
        ({"ended_after": "2026-12-01T03:00Z"}, {ended}),
        ({"ended_before": "2026-12-01T03:00Z"}, set()),
        ({"ended_after": "2026-11-30", "ended_before": "2026-12-02"}, {ended}),
        ({"color": "green"}, {theirs, ended, expired}),
    ]:
        assert found(**asked) == expected, asked


@pytest.mark.parametrize("use_tz", [True, False])
def test_session_is_found_by_when_it_began_and_was_active(alice, clock, settings, use_tz):
    """Nobody is missed because their handle was made a moment after their sign-in."""
    settings.USE_TZ = use_tz
    row = row_of(sign_in(alice))
    at = row.last_seen_at
    moments = [(at + timedelta(milliseconds=number)).isoformat() for number in (-1, 0, 1)]
    assert [len(found(seen_before=moment)) for moment in moments] == [0, 0, 1]
    assert [len(found(seen_after=moment)) for moment in moments] == [1, 1, 0]
    assert [len(found(started_before=moment)) for moment in moments] == [0, 0, 1]
    assert [len(found(started_after=moment)) for moment in moments] == [1, 1, 0]
    assert since(datetime(1, 1, 1, tzinfo=UTC)) == uuid.UUID(int=0)


@once
def test_handle_that_was_made_after_the_sign_in(alice, clock):
    row = row_of(sign_in(alice))
    late = uuid7(int((row.last_seen_at + timedelta(seconds=1)).timestamp() * 10**9))
    UserSession.objects.filter(pk=row.pk).update(id=late)
    assert len(found(seen_before=(row.last_seen_at + timedelta(milliseconds=1)).isoformat())) == 1


def test_is_narrow_where_there_is_an_index():
    narrow = [
        {"users": ","},
        {"network": "192.0.2.0/24"},
        {"handle": str(uuid7())},
        {"browser": str(uuid7())},
        {"reason": "idle"},
        {"staff": "1"},
    ]
    wide = [{"state": "active"}, {"seen_before": "2026-11-28"}, {}]
    assert all(Selection.parse(asked).is_narrow for asked in narrow)
    assert not any(Selection.parse(asked).is_narrow for asked in wide)


@once
def test_ranks_of_users_without_any(monkeypatch, root, alice):
    assert list(superusers()) == [root]
    alice.is_staff = True
    alice.save()
    assert set(selection.staff()) == {root, alice}
    monkeypatch.setattr(selection, "_has", lambda name: name == "is_superuser")
    assert list(selection.staff()) == [root]
    monkeypatch.setattr(selection, "_has", lambda name: False)
    assert not superusers().exists()
    assert not selection.staff().exists()
    assert not found(staff="1")


@once
def test_field_that_a_user_model_lacks():
    assert selection._has("is_staff")
    assert not selection._has("is_captain")


# From text, and back.

TIMES = st.datetimes(
    datetime(1970, 1, 3),  # noqa: DTZ001 (as Hypothesis wants them)
    datetime(9998, 12, 29),  # noqa: DTZ001
    timezones=st.one_of(st.none(), st.timezones()),
    allow_imaginary=True,
)
GOOD = {
    "users": st.lists(st.integers(0, 2**31 - 1), max_size=4).map(
        lambda keys: ",".join(map(str, keys)) or ","
    ),
    "network": networks().map(lambda found: str(found[0])),
    "handle": st.uuids().map(str),
    "browser": st.uuids().map(str),
    "state": st.sampled_from(STATES),
    "reason": st.sampled_from(EndReason.values),
    "device_type": st.sampled_from(DeviceType.values),
    "transport": st.sampled_from(Transport.values),
    "staff": st.sampled_from(["1", "0"]),
    "new": st.sampled_from(["1", "0"]),
    **{
        name: TIMES.map(datetime.isoformat)
        for name in PARSERS
        if name.endswith(("_after", "_before"))
    },
}
ANY = st.fixed_dictionaries({}, optional=GOOD)


@once
@given(ANY, st.booleans(), st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"]))
# An hour that comes twice, and one that does not come.
@example({"seen_after": "2026-10-25T02:30"}, True, "Europe/Berlin")
@example({"seen_after": "2026-03-29T02:30"}, True, "Europe/Berlin")
def test_text_and_back(asked, use_tz, zone):
    with override_settings(USE_TZ=use_tz, TIME_ZONE=zone):
        first = Selection.parse(asked)
        text = first.as_text()
        assert Selection.parse(text) == first
        assert Selection.parse(text).as_text() == text
        assert set(text) <= set(asked)


@once
@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-28T03:00:00Z", "2026-11-28T03:00"),
        ("2026-11-28T03:00+01:00", "2026-11-28T02:00"),
        ("2026-11-28", "2026-11-27T23:00"),  # the site is in Berlin
        ("2026-07-28 03:00", "2026-07-28T01:00"),
        ("20260728T0300", "2026-07-28T01:00"),
    ],
)
def test_times_are_those_of_the_site_unless_they_say_more(settings, use_tz, text, utc):
    settings.TIME_ZONE, settings.USE_TZ = "Europe/Berlin", use_tz
    at = Selection.parse({"seen_after": text}).seen_after
    assert timezone.is_aware(at) == use_tz
    aware = at if use_tz else timezone.make_aware(at)
    assert aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M") == utc


BAD = [
    ("users", "nobody"),
    ("users", "1,nobody"),
    ("users", "9" * 30),  # more than a column holds
    ("users", "9" * 5000),  # more than Python reads
    ("users", "1e3"),
    ("users", "1\0"),
    ("users", "1%00"),
    ("users", "1%ff"),
    ("network", "192.0.2.1/33"),
    ("network", "192.0.2"),
    ("network", "192.0.2.1/"),
    ("network", "192.0.2.٣"),
    ("network", "fe80::1%eth0"),
    ("network", "fe80::1%eth0/64"),
    ("network", "1234"),
    ("network", "9" * 5000),
    ("network", ","),
    ("handle", "nonsense"),
    ("handle", "\ud800"),
    ("browser", "1" * 5000),
    ("state", "ACTIVE"),
    ("state", ","),
    ("reason", "revoked\0"),
    ("device_type", "phone"),
    ("transport", "post"),
    ("seen_after", "yesterday"),
    ("seen_after", "2026-02-30"),
    ("seen_before", "0001-01-01"),
    ("started_after", "9999-12-31T23:59-12:00"),
    ("started_after", "2026-11-28T03:00+99:00"),
    ("ended_after", "1e9"),
    ("ended_before", "9" * 5000),
    ("ended_before", "\0"),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_what_makes_no_sense_is_refused(name, text):
    with pytest.raises(ValidationError) as caught:
        Selection.parse({name: text})
    (message,) = caught.value.messages
    assert message.endswith(".")
    message.encode()


NOBODYS = UserSession.objects.filter(pk=uuid.UUID(int=0))
ODD = st.one_of(st.text(), st.text("0123456789.:/,-+TZ%\0٣६\ud800"), st.sampled_from(["", ","]))


@given(st.sampled_from(list(PARSERS)), ODD)
def test_any_text_finds_sessions_or_is_refused(name, text):
    with suppress(ValidationError):
        assert not Selection.parse({name: text}).of(NOBODYS)


class Person(models.Model):  # noqa: DJ008
    """A user model whose primary key is a text."""

    code = models.CharField(max_length=20, primary_key=True)

    class Meta:
        app_label = "tests_of_selections"


class Contact(models.Model):  # noqa: DJ008
    person = models.OneToOneField(Person, models.CASCADE, primary_key=True)

    class Meta:
        app_label = "tests_of_selections"


class Mailbox(models.Model):  # noqa: DJ008
    """A user model whose key has validators, which are for forms: its own code need not care."""

    address = models.EmailField(primary_key=True)

    class Meta:
        app_label = "tests_of_selections"


@once
def test_primary_key_that_no_form_would_take(monkeypatch):
    monkeypatch.setattr(accounts, "get_user_model", lambda: Mailbox)
    assert Selection.parse({"users": "alice"}).users == ("alice",)


@once
@pytest.mark.parametrize("model", [Person, Contact])
def test_primary_keys_that_are_texts(monkeypatch, model):
    monkeypatch.setattr(accounts, "get_user_model", lambda: model)
    keys = ("a,b", "100%", "%2C", "Ä/b?c=%27&<i>'_;d 1", "@")
    whose = Selection(users=keys)
    assert Selection.parse(whose.as_text()) == whose
    for text, message in [("a" * 21, "is no user"), ("a%00b", "no text to search for")]:
        with pytest.raises(ValidationError, match=message):
            Selection.parse({"users": text})


# What staff type.


def test_search_finds_people_and_places(alice, bob):
    at_work, at_home = session(alice, ip="192.0.2.1"), session(alice, ip="2001:db8:1::1")
    theirs = session(bob, ip="192.0.2.2", browser=uuid.uuid4())

    def searched(text, by_email=False):
        return set(Selection.parse(search(text, by_email)).rows())

    for text, expected in [
        ("", {at_work, at_home, theirs}),
        ("alice", {at_work, at_home}),
        ("LIC", {at_work, at_home}),
        ("carol", set()),
        ("example.org", set()),  # of who may not see e-mail addresses
        ("192.0.2.0/24", {at_work, theirs}),
        ("alice 192.0.2.0/24", {at_work}),
        (" 2001:DB8:1::1 ", {at_home}),
        (str(at_home.pk), {at_home}),
        (f"bob {at_home.pk}", set()),
        (str(theirs.browser), {theirs}),
        (str(uuid.uuid4()), set()),
    ]:
        assert searched(text) == expected, text
    assert searched("example.org", by_email=True) == {at_work, at_home, theirs}
    assert searched("alice@example.org", by_email=True) == {at_work, at_home}


def test_search_is_for_one_session(alice):
    one, other = session(alice), session(alice)
    with pytest.raises(ValidationError, match="one session at a time"):
        search(f"{one.pk} {other.pk}", by_email=True)


def test_name_of_a_user_may_look_like_a_handle(alice):
    """An identity provider names its users by such."""
    alice.username = str(uuid.uuid4())
    alice.save()
    mine, _ = session(alice), session(alice)
    for name in (alice.username, alice.username[:20]):
        assert mine in Selection.parse(search(name, by_email=False)).rows()


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Chicago", "UTC"])
@pytest.mark.parametrize("text", ["1970-01-01", "1970-01-02", "9998-12-31T23:30", "9999-12-31"])
def test_moment_at_the_edge_is_refused_or_comes_back(zone, text):
    with timezone.override(zone):
        found = None
        with suppress(ValidationError):
            found = Selection.parse({"started_after": text})
        assert found or text != "1970-01-02"
        if found:
            assert Selection.parse(found.as_text()) == found


def test_whole_name_is_one_user(alice):
    al = User.objects.create_user("al")
    assert search("al", by_email=True) == {"users": str(al.pk)}
    assert len(search("a", by_email=True)["users"].split(",")) == 2


def test_name_of_several_words(db):
    anna = User.objects.create_user("anna smith")
    User.objects.create_user("anna")
    assert search("anna 192.0.2.1 smith", by_email=False) == {
        "users": str(anna.pk),
        "network": "192.0.2.1",
    }


@once
def test_common_name_finds_some(db, monkeypatch):
    monkeypatch.setattr(selection, "PEOPLE", 2)
    for number in range(3):
        User.objects.create_user(f"anna{number}")
    assert len(search("anna", by_email=False)["users"].split(",")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("192.0.2.1 192.0.2.2", "one address and one session at a time"),
        ("a\0b", "no text to search for"),
        ("\udcff", "no text to search for"),
        ("a" * 60_000, "Search for a shorter text"),
    ],
)
def test_search_that_makes_no_sense(text, message):
    with pytest.raises(ValidationError, match=message):
        search(text, by_email=True)


@given(ODD)
def test_any_search_finds_sessions_or_is_refused(text):
    with suppress(ValidationError):
        assert not Selection.parse(search(text, by_email=True)).of(NOBODYS)


class Soldier(models.Model):  # noqa: DJ008
    """A user model whose user name is a number."""

    number = models.IntegerField(unique=True)
    USERNAME_FIELD = "number"

    class Meta:
        app_label = "tests_of_selections"


class Captain(models.Model):  # noqa: DJ008
    """A user model whose user name is somebody else."""

    soldier = models.OneToOneField(Soldier, models.CASCADE)
    USERNAME_FIELD = "soldier"

    class Meta:
        app_label = "tests_of_selections"


@pytest.fixture
def navy(transactional_db):
    """The tables of these users."""
    with connection.schema_editor() as editor:
        editor.create_model(Soldier)
        editor.create_model(Captain)
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(Captain)
        editor.delete_model(Soldier)


def test_user_names_that_are_no_texts(monkeypatch, navy):
    jane = Soldier.objects.create(number=7)
    captain = Captain.objects.create(soldier=jane)
    monkeypatch.setattr(selection, "get_user_model", lambda: Soldier)
    assert search("7", by_email=False) == {"users": str(jane.pk)}
    assert search("jane", by_email=False) == {"users": ","}
    monkeypatch.setattr(selection, "get_user_model", lambda: Captain)
    assert search(str(jane.pk), by_email=False) == {"users": str(captain.pk)}
    assert search("jane", by_email=False) == {"users": ","}

"""
SESSIONKIT_ACTIVITY = "buffered": requests write their activity into Redis alone, and a task carries
it to the rows. On every database, with sessions in a real Redis.
"""

import uuid
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.http import HttpResponse
from django.urls import path
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_sessionkit import activity, registry, tasks
from django_sessionkit.activity import Carried
from django_sessionkit.backends.redis import SessionStore
from django_sessionkit.backends.redis_clients import sync_client
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.clock import as_milliseconds
from django_sessionkit.clock import now as milliseconds
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import Ending, EndReason, UserSession, get_session_store
from django_sessionkit.purging import purge
from tests import buffered
from tests.browsers import browse_as, put, read, view
from tests.buffered import costs, count_waiting, keys, waiting_sessions
from tests.calls import BACKGROUND, CALL, use
from tests.calls import urlpatterns as site_with_calls
from tests.interleaving import HOLDS_ROWS, after, be_impatient, before, held_open
from tests.people import FIREFOX, IPHONE, key_of
from tests.store import HOUR

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]


def fail_after_a_new_age(request):
    request.session.set_expiry(20 * 24 * HOUR)
    return HttpResponse("out of order", status=500)


async def afail_after_a_new_age(request):
    await request.session.aset_expiry(20 * 24 * HOUR)
    return HttpResponse("out of order", status=500)


urlpatterns = [
    *site_with_calls,
    path("fail_after_a_new_age/", fail_after_a_new_age),
    path("afail_after_a_new_age/", afail_after_a_new_age),
]

MINUTE = timedelta(minutes=1)


ELSEWHERE = {"x-forwarded-for": "198.51.100.7"}


@pytest.fixture(autouse=True)
def site(settings):
    settings.SESSIONKIT_TRUSTED_PROXIES = 1
    with buffered.site():
        yield


@pytest.fixture
def used(signed_in, clock):
    """A browser whose session has written its activity into the row once, and may wait now."""
    browser = signed_in()
    clock.move(seconds=61)
    read(browser)
    activity.carry()
    clock.move(seconds=61)
    return browser


def row_of(browser):
    return UserSession.objects.get(digest=digest_of(key_of(browser)))


def is_in(browser):
    return browser.get(view(browser, "whoami")).content == b"alice"


# What it costs.


def test_a_request_writes_its_activity_into_redis_alone(used):
    before = row_of(used)
    with costs(sql=0, commands=2):
        assert read(used).json() == {}
    assert count_waiting() == 1
    assert row_of(used).last_seen_at == before.last_seen_at
    with costs(sql=0, commands=1):  # it is not due any more
        read(used)


def test_a_task_carries_the_activity_to_the_row(used, policy):
    read(used)
    now = timezone.now()
    with costs(sql=2):  # is there an epoch that is not worked off?
        assert activity.carry() == Carried(written=1)
    row = row_of(used)
    assert row.last_seen_at == now
    assert row.expires_at == now + timedelta(days=14)
    assert count_waiting() == 0
    with costs(sql=0):
        assert activity.carry() == Carried()


@pytest.mark.redis
def test_the_first_activity_after_a_sign_in_is_written_into_the_row(signed_in, clock):
    activity.carry()
    browser = signed_in()
    clock.move(seconds=61)
    # The row is read and written; the session is read, touched, and keeps what the row says.
    with costs(sql=2, commands=3):
        read(browser)
    assert row_of(browser).last_seen_at == timezone.now()
    clock.move(seconds=61)
    with costs(sql=0, commands=2):
        read(browser)


def test_a_thousand_sessions_are_carried_with_one_statement(alice):
    seen = waiting_sessions(alice, 1000, idle=True)
    with costs(sql=2):  # one for the whole run
        assert activity.carry() == Carried(written=1000)
    rows = UserSession.objects.in_bulk([each.handle for each in seen])
    for each in seen:
        row = rows[each.handle]
        assert as_milliseconds(row.last_seen_at) == each.at
        assert as_milliseconds(row.expires_at) == each.expires_at
        assert as_milliseconds(row.idle_at) == each.idle_at


def test_what_does_not_belong_to_the_normal_path_costs_one_more(alice):
    seen = waiting_sessions(alice, 20)
    UserSession.objects.filter(pk=seen[0].handle).update(ended_at=timezone.now())
    UserSession.objects.filter(pk=seen[1].handle).delete()
    with costs(sql=3):
        assert activity.carry() == Carried(written=18, removed=2)
    assert SessionStore.peek([each.digest for each in seen]) == {each.digest for each in seen[2:]}


def test_what_needs_several_statements_is_carried_by_one_run(alice, monkeypatch):
    monkeypatch.setattr(activity, "SIZE", 1)
    waiting_sessions(alice, 20)
    assert activity.carry() == Carried(written=20)
    assert count_waiting() == 0


@pytest.mark.redis
def test_a_run_ends_when_its_time_is_over(alice, monkeypatch):
    monkeypatch.setattr(activity, "SIZE", 1)
    seen = waiting_sessions(alice, 20)
    total = activity.carry(seconds=0)
    assert 1 <= total.written < len(seen)
    assert count_waiting() == len(seen) - total.written


@pytest.mark.redis
def test_without_the_setting_nothing_waits(settings, signed_in, clock):
    settings.SESSIONKIT_ACTIVITY = "direct"
    browser = signed_in()
    for _ in range(3):
        clock.move(seconds=61)
        with costs(sql=2, commands=2):
            read(browser)
        with costs(sql=0, commands=0):
            assert activity.carry() == Carried()


# What is not put off.


@pytest.mark.redis
def test_the_row_knows_at_once_of_another_address(used, clock):
    with costs(sql=2, commands=3):
        read(used, **ELSEWHERE)
    assert row_of(used).ip == "198.51.100.7"
    clock.move(seconds=61)
    with costs(sql=0, commands=2):
        read(used, **ELSEWHERE)


@pytest.mark.redis
def test_the_row_knows_at_once_of_another_user_agent(used):
    with costs(sql=2, commands=3):
        read(used, **{"user-agent": IPHONE})
    assert row_of(used).user_agent == IPHONE


@pytest.mark.redis
def test_the_row_knows_of_the_way_back_from_an_address_where_a_view_has_set_an_expiry(used, clock):
    read(used)
    clock.move(seconds=10)
    CALL[:] = ["set_expiry", 20 * 24 * HOUR]
    used.post(view(used, "call"), headers=ELSEWHERE)
    assert row_of(used).ip == "198.51.100.7"
    activity.carry()
    clock.move(seconds=61)
    read(used)
    assert row_of(used).ip == "127.0.0.1"


@pytest.mark.redis
def test_the_row_knows_of_the_way_back_from_an_address_without_the_setting(used, clock, settings):
    """Also in a rolling deploy: some processes have it, and others do not."""
    settings.SESSIONKIT_ACTIVITY = "direct"
    read(used, **ELSEWHERE)
    assert row_of(used).ip == "198.51.100.7"
    settings.SESSIONKIT_ACTIVITY = "buffered"
    activity.carry()
    clock.move(seconds=61)
    read(used)
    assert row_of(used).ip == "127.0.0.1"


@pytest.mark.redis
def test_an_expiry_that_a_view_sets_is_in_the_row_first(used):
    used.get(f"/{used.a}fail_after_a_new_age/")  # so nothing is saved
    assert row_of(used).expires_at == timezone.now() + timedelta(days=20)


@pytest.mark.redis
def test_a_request_in_the_background_asks_the_registry(used):
    with costs(sql=1, commands=1):
        used.get(view(used, "read"), headers=BACKGROUND)


@pytest.mark.redis
def test_a_row_that_lost_its_address_has_one_again_when_the_user_comes_back(used, settings, clock):
    settings.SESSIONKIT_ADDRESS_RETENTION = 600
    clock.move(seconds=600)
    activity.carry()
    get_session_store().clear_expired()
    assert row_of(used).ip is None
    clock.move(seconds=5)
    read(used)
    assert row_of(used).ip == "127.0.0.1"


# No task is at work.


@pytest.mark.redis
def test_a_session_that_is_used_never_looks_expired_though_nothing_is_carried(
    signed_in, policy, clock
):
    policy(idle=600)
    browser = signed_in()
    clock.move(seconds=61)
    read(browser)
    activity.carry()
    for _ in range(40):
        clock.move(seconds=50)
        assert is_in(browser)
        assert row_of(browser).expires_at > timezone.now() + timedelta(seconds=300)


@pytest.mark.redis
def test_requests_write_into_the_row_again_when_nothing_was_carried_for_long(used, clock):
    read(used)
    clock.move(seconds=119)
    with costs(sql=2):
        read(used)
    activity.carry()
    clock.move(seconds=61)
    with costs(sql=0):
        read(used)


@pytest.mark.redis
def test_a_redis_that_is_full_lets_nothing_wait(used, monkeypatch):
    """A row that nobody writes would look expired."""
    monkeypatch.setattr(SessionStore, "touch_later", staticmethod(lambda seen: False))
    with costs(sql=2):
        read(used)
    assert row_of(used).last_seen_at == timezone.now()


# Endings.


def test_a_session_that_is_ended_is_refused_at_once(used):
    UserSession.objects.all().revoke()
    assert not is_in(used)
    assert activity.carry() == Carried()
    assert not is_in(used)


def test_an_ended_session_whose_removal_was_lost_is_found_by_the_next_run(used, clock):
    UserSession.objects.update(ended_at=timezone.now(), end_reason=EndReason.REVOKED)
    assert is_in(used)  # nobody was asked
    assert activity.carry() == Carried(removed=1)
    assert not is_in(used)
    assert count_waiting() == 0


@pytest.mark.redis
def test_a_session_that_nobody_carries_is_found_by_its_own_request(used, clock):
    UserSession.objects.update(ended_at=timezone.now(), end_reason=EndReason.REVOKED)
    clock.move(seconds=119)
    assert not is_in(used)


def test_a_session_whose_row_is_gone_is_removed(used):
    read(used)
    UserSession.objects.all().delete()
    assert activity.carry() == Carried(removed=1)
    assert not is_in(used)


def test_the_rows_of_ended_sessions_stay_as_they_are(used):
    read(used)
    UserSession.objects.all().revoke()
    row = row_of(used)
    activity.carry()
    assert vars(row_of(used)) | {"_state": 0} == vars(row) | {"_state": 0}


def test_an_activity_that_waits_does_not_take_the_key_of_the_session(used):
    """The row has another digest by now."""
    read(used)
    use(used, "cycle_key")
    assert activity.carry() == Carried(left=1)
    assert count_waiting() == 1
    assert is_in(used)


@pytest.mark.redis
def test_a_new_key_is_not_taken_for_one_that_came_back(used, clock):
    read(used)
    use(used, "cycle_key")
    clock.move(seconds=11)
    activity.carry()
    assert count_waiting() == 0
    assert is_in(used)


@pytest.mark.redis
def test_a_session_whose_row_just_has_a_new_key_is_not_removed(used, monkeypatch, clock):
    """The session follows its row. What waits may be older than that."""
    read(used)
    clock.move(seconds=12)
    left = after(monkeypatch, registry, "rekey", activity.carry)
    use(used, "cycle_key")
    assert not left
    assert is_in(used)


@pytest.mark.redis
def test_a_former_key_that_the_store_brings_back_is_removed(used, clock):
    """As after a failover to a replica that was behind."""
    thief = browse_as(used, key_of(used))
    digest = digest_of(key_of(used))
    stored = SessionStore.read(digest)
    use(used, "cycle_key")
    expires_at = milliseconds() + HOUR * 1000
    assert SessionStore.insert(digest, stored.payload, stored.touched_at, expires_at)
    assert is_in(thief)
    clock.move(seconds=11)
    assert activity.carry().removed == 1
    assert not is_in(thief)
    assert is_in(used)


@pytest.mark.redis
def test_a_trace_of_a_former_key_is_not_removed(signed_in, policy, clock):
    policy(renew_after=600, renew_grace=HOUR)
    browser = signed_in()
    clock.move(seconds=61)
    read(browser)
    activity.carry()
    clock.move(seconds=61)
    old = browse_as(browser, key_of(browser))
    read(browser)
    assert count_waiting() == 1
    clock.move(seconds=540)
    read(browser)  # it gets a new key
    assert key_of(old) != key_of(browser)
    activity.carry()
    assert is_in(old)
    assert is_in(browser)


def test_a_change_of_privileges_gives_the_session_a_new_key(used, alice, clock):
    key = key_of(used)
    alice.is_staff = True
    alice.save()
    read(used)
    activity.carry()  # finds that the session is to get one
    clock.move(seconds=61)
    read(used)
    assert key_of(used) != key
    assert not row_of(used).renew
    clock.move(seconds=61)
    assert is_in(used)


@pytest.mark.redis
def test_requests_of_a_former_key_ask_the_registry_for_an_hour(used, alice, clock):
    """For the trace under that key could also be a session that somebody has written to."""
    digest = digest_of(key_of(used))
    alice.is_staff = True
    alice.save()
    read(used)
    activity.carry()
    clock.move(seconds=61)
    read(used)
    clock.move(seconds=60)
    activity.carry()
    assert count_waiting() == 1
    assert SessionStore.read(digest).flushed_at == 0
    clock.move(seconds=HOUR)
    activity.carry()
    assert count_waiting() == 0


@pytest.mark.redis
def test_a_user_whose_privileges_change_and_who_is_away_keeps_nobody_asking(used, alice, clock):
    key, digest = key_of(used), digest_of(key_of(used))
    alice.is_staff = True
    alice.save()
    read(used)
    at = timezone.now()
    activity.carry()
    assert SessionStore.read(digest).flushed_at == 0
    clock.move(seconds=HOUR)
    assert activity.carry() == Carried(written=1)
    assert row_of(used).last_seen_at == at
    assert SessionStore.read(digest).flushed_at
    read(used)
    activity.carry()
    clock.move(seconds=61)
    read(used)
    assert key_of(used) != key


@pytest.mark.redis
def test_what_an_epoch_has_ended_is_found_though_the_store_has_lost_the_number(used, clock):
    now = timezone.now()
    epoch = {"scope": Ending.Scope.EVERYBODY, "before": now, "created_at": now}
    Ending.objects.create(**epoch, last=uuid.uuid4())
    clock.move(seconds=61)
    assert is_in(used)  # nobody was asked
    assert activity.carry() == Carried(left=1)
    clock.move(seconds=61)
    assert not is_in(used)


# Runs that are killed, and runs at the same time.


class Killed(BaseException):
    pass


def die():
    raise Killed


@pytest.mark.redis
@pytest.mark.parametrize("step", ["_write", "note_flushed"])
def test_a_run_that_is_killed_loses_nothing(used, monkeypatch, step):
    read(used)
    at = timezone.now()
    owner = activity if step == "_write" else SessionStore
    before(monkeypatch, owner, step, die)
    with pytest.raises(Killed):
        activity.carry()
    assert count_waiting() == 1
    assert activity.carry() == Carried(written=1)
    assert row_of(used).last_seen_at == at


@pytest.mark.parametrize("place", [before, after])
def test_two_runs_do_not_mind_each_other(used, monkeypatch, place):
    read(used)
    place(monkeypatch, activity, "_write", lambda: activity.carry())
    assert activity.carry() == Carried(written=1)
    assert row_of(used).last_seen_at == timezone.now()
    assert count_waiting() == 0


@pytest.mark.redis
def test_an_activity_after_what_was_read_goes_on_waiting(used, monkeypatch, clock):
    read(used)

    def use_again():
        clock.move(seconds=61)
        read(used)

    after(monkeypatch, activity, "_write", use_again)
    assert activity.carry() == Carried(written=1)
    assert count_waiting() == 1
    activity.carry()
    assert row_of(used).last_seen_at == timezone.now()


def test_a_row_does_not_go_back(used):
    read(used)
    later = timezone.now() + timedelta(hours=1)
    UserSession.objects.update(last_seen_at=later, expires_at=later + MINUTE)
    assert activity.carry() == Carried(written=1)
    row = row_of(used)
    assert (row.last_seen_at, row.expires_at) == (later, later + MINUTE)


@pytest.mark.parametrize("age", [HOUR, 20 * 24 * HOUR])
def test_a_script_that_sets_an_expiry_is_not_overruled_by_what_waits(used, clock, age):
    read(used)
    clock.move(seconds=5)
    session = get_session_store()(key_of(used))
    session.set_expiry(age)
    session.save()
    expires_at = row_of(used).expires_at
    assert expires_at == timezone.now() + timedelta(seconds=age)
    activity.carry()
    assert row_of(used).expires_at == expires_at


@pytest.mark.django_db(transaction=True)
def test_a_row_that_somebody_holds_is_left_for_the_next_run(used):
    read(used)
    at = timezone.now()
    be_impatient()
    with held_open(lambda: UserSession.objects.update(label="laptop")):
        assert activity.carry() == (Carried(left=1) if HOLDS_ROWS else Carried(written=1))
    activity.carry()
    row = row_of(used)
    assert (row.last_seen_at, row.label) == (at, "laptop")
    assert count_waiting() == 0


# What is looked at, before it is carried.


@pytest.mark.redis
def test_the_page_of_devices_knows_of_what_waits(used):
    read(used)
    page = used.get("/account/sessions/").context["page"]
    (session,) = page.sessions
    assert session.last_seen_at == timezone.now()
    assert session.is_active_now


def test_another_device_is_active_now_by_what_waits(used, signed_in):
    read(used)
    other = signed_in(**{"user-agent": FIREFOX})
    page = other.get("/account/sessions/").context["page"]
    (session,) = [each for each in page.sessions if not each.is_current]
    assert session.is_active_now
    assert session.last_seen_at == timezone.now()


@pytest.mark.redis
def test_staff_see_what_waits(used, root, client):
    read(used)
    at = timezone.now()
    client.force_login(root)
    page = client.get("/admin/django_sessionkit/usersession/", {"users": row_of(used).user_id})
    (session,) = page.context["cl"].result_list
    assert session.last_seen_at == at


@pytest.mark.redis
def test_the_idlest_session_is_told_by_what_waits(used, signed_in, policy, clock):
    policy(limit=2, on_limit="end_idlest")
    clock.move(seconds=1)
    other = signed_in()
    clock.move(seconds=60)
    read(used)  # waits: the row says that this one is the idlest
    assert row_of(used).last_seen_at < row_of(other).last_seen_at
    signed_in()
    assert is_in(used)
    assert not is_in(other)


@pytest.mark.redis
def test_a_store_that_does_not_answer_keeps_the_list_from_nobody(used, monkeypatch):
    def fail(*args):
        raise OperationalError("no route to host")

    monkeypatch.setattr(SessionStore, "last_seen", staticmethod(fail))
    with pytest.raises(StoreUnavailable):
        UserSession.objects.alive()


@pytest.mark.redis
def test_what_is_no_session_is_not_alive(used):
    (key,) = [key for key in keys() if len(key.rpartition(b"}")[2]) == 61]
    sync_client().delete(key)
    sync_client().lpush(key, "spoiled")
    assert UserSession.objects.alive() == []


@pytest.mark.redis
def test_what_is_malformed_keeps_the_list_from_nobody(used):
    row = row_of(used)
    (key,) = [key for key in keys() if len(key.rpartition(b"}")[2]) == 61]
    sync_client().set(key, "spoiled by another program")
    (session,) = UserSession.objects.alive()
    assert session.last_seen_at == row.last_seen_at


@pytest.mark.redis
def test_what_somebody_else_has_written_does_no_harm(used):
    read(used)
    client, (key,) = sync_client(), keys("activity")
    client.hset(key, "a", "b")
    assert activity.carry() == Carried(written=1)
    client.hset(key, b"a" * 32, b"\xff" * 52)
    assert activity.carry() == Carried()
    client.delete(key)
    client.lpush(key, "spoiled")
    assert activity.carry() == Carried()
    client.delete(key)


# Tasks.


@pytest.mark.redis
def test_the_purge_carries_first(used):
    read(used)
    get_session_store().clear_expired()
    assert count_waiting() == 0


@pytest.mark.redis
def test_a_purge_whose_store_does_not_answer_does_what_takes_none(
    used, settings, monkeypatch, clock
):
    settings.SESSIONKIT_RETENTION = 60
    UserSession.objects.all().revoke()
    purge()
    clock.move(seconds=61)

    def fail(*args):
        raise OperationalError("no route to host")

    monkeypatch.setattr(SessionStore, "waiting", staticmethod(fail))
    with pytest.raises(StoreUnavailable):
        purge()
    assert not UserSession.objects.exists()


@pytest.mark.redis
def test_there_is_nothing_to_carry_where_the_site_has_moved_away(settings):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
    assert activity.carry() == Carried()


@pytest.mark.redis
def test_task_carries(used):
    read(used)
    tasks.carry_activity.run()
    assert count_waiting() == 0


# Anything, in any order.


class Walk:
    """A browser, what has happened to its session, and what must be true then."""

    def __init__(self, browser, clock):
        self.browser, self.clock = browser, clock
        self.headers, self.is_over, self.is_marked = {}, False, False
        self.pk = row_of(browser).pk
        self.known = self.row.last_seen_at

    @property
    def row(self):
        return UserSession.objects.get(pk=self.pk)

    def carry(self):
        # Of a session that was not active since, the run does not hear.
        found = [part for parts in SessionStore.waiting() for part in parts]
        waits = self.row.digest in {seen.digest for part in found for seen in part.seen}
        activity.carry()
        self.is_over = self.is_over or (self.is_marked and waits)

    def carry_and_rest(self):
        self.carry()
        self.clock.move(seconds=400)

    def change_the_key(self):
        # The registry refuses a new key to a session that has ended.
        if not self.is_marked and is_in(self.browser):
            use(self.browser, "cycle_key")

    def go_to_another_network(self):
        self.headers = ELSEWHERE

    def put_the_clock_back(self):
        self.clock.move(seconds=-300)
        self.known = min(self.known, timezone.now())

    def write(self):
        put(self.browser, cart=uuid.uuid4().hex)

    def lose_the_end(self):
        UserSession.objects.update(ended_at=timezone.now(), end_reason=EndReason.REVOKED)
        self.is_marked = True

    def end(self):
        if UserSession.objects.all().revoke():  # else it had ended, and nobody has removed it
            self.is_over = self.is_marked = True

    def look(self):
        """Use the session, and return whether it goes on."""
        url = view(self.browser, "whoami")
        goes_on = self.browser.get(url, headers=self.headers).content == b"alice"
        row = self.row
        assert not (goes_on and self.is_over)
        assert goes_on or self.is_marked or row.expires_at <= timezone.now()
        assert row.last_seen_at >= self.known
        self.known = row.last_seen_at
        assert not goes_on or row.expires_at > timezone.now()
        return goes_on


STEPS = st.sampled_from(
    [
        *["carry", "carry", "carry_and_rest", "write", "change_the_key", "go_to_another_network"],
        *["put_the_clock_back", "lose_the_end", "end", "row", "row", "row", "row"],
    ]
)


@pytest.mark.redis
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(st.tuples(STEPS, st.sampled_from([1, 20, 61, 61, 100, 119])), max_size=14),
    st.lists(st.sampled_from([61, 100]), max_size=3),
)
def test_whatever_happens(signed_in, policy, clock, steps, before):
    """
    A row never looks expired while its session is used, and never goes back, and what has ended
    does not come back.
    """
    policy(idle=600)
    walk = Walk(signed_in(), clock)
    for seconds in before:
        clock.move(seconds=seconds)
        activity.carry()
        assert walk.look()
    for step, seconds in steps:
        clock.move(seconds=seconds)
        if step != "row":  # else nothing but time
            getattr(walk, step)()
        if not walk.look():
            break
    UserSession.objects.all().delete()

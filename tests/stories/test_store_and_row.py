"""The store and the row agree: the store never says later than the row."""

import random
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import Group
from django.db import OperationalError
from django.http import HttpResponse
from django.urls import path

from django_sessionkit import registry
from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import UserSession
from tests import store
from tests.apps import Keeping
from tests.browsers import put, read
from tests.calls import BACKGROUND, use
from tests.calls import urlpatterns as site_with_calls
from tests.people import is_still_in, key_of, post_sign_in
from tests.store import SessionStore

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.transports("cookie", "header"),
]


def fail_after_a_new_age(request):
    request.session.set_expiry(77)
    return HttpResponse("out of order", status=500)


async def afail_after_a_new_age(request):
    await request.session.aset_expiry(77)
    return HttpResponse("out of order", status=500)


urlpatterns = [
    *site_with_calls,
    path("fail_after_a_new_age/", fail_after_a_new_age),
    path("afail_after_a_new_age/", afail_after_a_new_age),
]


def save_by_a_script(browser, age=None):
    session = SessionStore(key_of(browser))
    session["news"] = uuid.uuid4().hex
    if age is not None:
        session.set_expiry(age)
    session.save()


def read_without_registry(browser, monkeypatch):
    def no_route(*args):
        raise OperationalError("no route to host")

    with monkeypatch.context() as down:
        down.setattr(registry, "touch", no_route)
        read(browser)


def write_in_background(browser):
    browser.post(f"/{browser.a}write/", {"news": uuid.uuid4().hex}, headers=BACKGROUND)


# Each is given the browser, a random number generator and monkeypatch.
STEPS = {
    "reads": lambda browser, *_: read(browser),
    "writes": lambda browser, *_: put(browser, cart=uuid.uuid4().hex),
    "saves": lambda browser, *_: use(browser, "save"),
    "cycles the key": lambda browser, *_: use(browser, "cycle_key"),
    "sets an age": lambda browser, chance, _: use(browser, "set_expiry", chance.randint(20, 90)),
    "sets no age": lambda browser, *_: use(browser, "set_expiry", None),
    "reauthenticates": lambda browser, *_: use(browser, "reauthenticate"),
    "fails": lambda browser, *_: browser.get(f"/{browser.a}fail_after_a_new_age/"),
    "polls": lambda browser, *_: browser.get(f"/{browser.a}read/", headers=BACKGROUND),
    "posts in the background": lambda browser, *_: write_in_background(browser),
    "a script saves": lambda browser, *_: save_by_a_script(browser),
    "a script sets an age": lambda browser, chance, _: save_by_a_script(
        browser, chance.choice([55, 61])
    ),
    "reads without registry": lambda browser, _, monkeypatch: read_without_registry(
        browser, monkeypatch
    ),
}


def is_alive(browser):
    return SESSION_KEY in SessionStore(key_of(browser)).load()


def lateness(browser):
    """Return how many milliseconds later than its row a session expires in the store."""
    digest = digest_of(key_of(browser))
    row = UserSession.objects.get(digest=digest)
    return store.expiries()[digest] - round(row.expires_at.timestamp() * 1000)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "rules",
    [
        {"idle": 20},
        {"idle": 20, "lock": True},
        {"absolute": 90},
        {"idle": 20, "absolute": 90, "renew_after": 10},
    ],
    ids=["idle", "lock", "absolute", "renewed"],
)
def test_the_store_never_says_later_than_the_row(
    signed_in, policy, clock, settings, monkeypatch, rules, seed
):
    settings.SESSION_COOKIE_AGE = 60
    policy(**rules)
    chance = random.Random(seed)  # noqa: S311
    browser = signed_in()
    done = []
    for _ in range(40):
        seconds, step = chance.choice([0, 0.5, 1, 1.4, 2, 3, 5, 9]), chance.choice([*STEPS])
        clock.move(seconds=seconds)
        if not is_alive(browser):
            post_sign_in(browser)
            done.append("signs in")
        STEPS[step](browser, chance, monkeypatch)
        done.append(f"after {seconds} {step}")
        assert lateness(browser) <= 0, ", ".join(done[-9:])


def test_a_save_between_two_touches_does_not_make_a_session_outlive_its_row(
    signed_in, policy, clock
):
    """The limit, the list and a change of privileges read the row, and missed this session."""
    policy(idle=20, limit=1)
    browser = signed_in()
    clock.move(seconds=1.4)
    put(browser, cart="teapot")
    clock.move(seconds=19.1)
    other = signed_in()
    assert is_still_in(other)
    assert not is_still_in(browser)


@pytest.fixture
def looks_expired(signed_in, policy, clock):
    """A browser with a session that goes on, by the store, and is over, by its row."""

    def looks_expired(**rules):
        policy(**rules)
        browser = signed_in()
        UserSession.objects.update(expires_at=datetime.now(UTC) - timedelta(seconds=5))
        return browser

    return looks_expired


def test_a_row_that_merely_looks_expired_counts_towards_the_limit(looks_expired, signed_in):
    browser = looks_expired(limit=1)
    assert is_still_in(signed_in())
    assert not is_still_in(browser)


def test_who_waits_for_room_is_shown_a_session_that_merely_looks_expired(looks_expired, signed_in):
    browser = looks_expired(limit=1, on_limit="ask")
    assert len(UserSession.objects.alive()) == 1
    waiting = signed_in()
    assert waiting.get("/account/sessions/limit/").context["surplus"] == 1
    assert is_still_in(browser)


@pytest.mark.parametrize("answer", ["end", "renew"])
@pytest.mark.parametrize("by", ["flag", "group"])
def test_a_change_of_privileges_takes_a_row_that_merely_looks_expired(
    looks_expired, clock, alice, answer, by
):
    browser = looks_expired(on_privilege_change=answer)
    key = key_of(browser)
    if by == "flag":
        alice.is_staff = True
        alice.save()
    else:
        alice.groups.add(Group.objects.create(name="editors"))
    clock.move(seconds=100)
    assert is_still_in(browser) is (answer == "renew")
    is_told_only = isinstance(browser, Keeping) and answer == "end"  # and keeps a key of no use
    assert (key_of(browser) == key) is is_told_only

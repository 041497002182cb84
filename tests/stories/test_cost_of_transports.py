"""What requests cost, in round trips: by a header, the same as by a cookie."""

import pytest

from tests import store
from tests.apps import AsgiApp
from tests.browsers import AsgiBrowser, put, read, view
from tests.people import post_sign_in
from tests.store import later, round_trips

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.transports("cookie", "header"),
]


def test_what_requests_cost(shopper):
    browser = shopper()
    with round_trips(0):
        browser.get("/")
    with round_trips(1):
        read(browser)
    with round_trips(2):  # the session, and its user
        browser.get(view(browser, "whoami"))
    with round_trips(2):
        put(browser, cart="kettle")
    with later(61):
        with round_trips(2):  # nobody is there, but the row has to let the session go on
            read(browser, **{"x-background-request": "1"})
        with round_trips(4):  # the session and its row are read first, and written last
            read(browser)
        with round_trips(1):
            read(browser)
    with later(122), round_trips(5):
        put(browser, cart="teapot")


def test_what_a_sign_in_costs(browse, alice):
    browser = browse()
    with round_trips(7 if store.APART else 9):
        post_sign_in(browser)


@pytest.mark.redis
@pytest.mark.parametrize("kind", [AsgiBrowser, AsgiApp])
def test_no_async_request_takes_a_thread(alice, monkeypatch, kind):
    client = kind()
    post_sign_in(client)
    for module in ("django_sessionkit.middleware", "django_sessionkit.backends.base"):
        monkeypatch.setattr(f"{module}.sync_to_async", None)
    assert put(client, cart="kettle").content == b"written"
    assert read(client).json() == {"cart": "kettle"}

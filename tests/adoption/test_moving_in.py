"""
A site with visitors moves to an engine of ours: nobody notices. The sessions of each engine of
Django, and of another package, are told about in the same words.
"""

import pytest

from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import UserSession
from tests import store
from tests.browsers import cart, put
from tests.moving import COOKIES, HERE, generation, is_there, restarted
from tests.people import CREDENTIALS, is_still_in, key_of, only_row

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def shopper_there(alice, browse, old):
    """Alice, signed in and with something in her cart, before the site moves."""
    with generation(old):
        browser = browse()
        put(browser, cart="teapot")
        browser.post("/login/", CREDENTIALS)
        assert is_still_in(browser)
    return restarted(browser)


def test_nobody_is_signed_out(shopper_there, old):
    key = key_of(shopper_there)
    with generation(HERE, (old,)):
        assert is_still_in(shopper_there)
        assert cart(shopper_there) == "teapot"
        assert (key_of(shopper_there) == key) is (old != COOKIES)
        row = only_row()
        assert row.digest == digest_of(key_of(shopper_there))
        assert row.ip == "127.0.0.1"
        page = shopper_there.get("/account/sessions/")
        assert "This device" in page.text
    assert not is_there(old, key)
    # It is here for good.
    with generation(HERE):
        assert is_still_in(shopper_there)
    assert store.payloads().keys() == {row.digest}


def test_cart_of_a_visitor_comes_along(browse, old):
    with generation(old):
        browser = browse()
        put(browser, cart="teapot")
    with generation(HERE, (old,)):
        browser = restarted(browser)
        assert cart(browser) == "teapot"
        put(browser, cart="kettle")
        assert cart(browser) == "kettle"
    assert not UserSession.objects.exists()

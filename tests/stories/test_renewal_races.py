"""Other requests come, or are under way, at the moment when the key of a session changes."""

import threading

import pytest
from django.db import connection
from django.http import HttpResponse
from django.urls import path

from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import EndReason, UserSession
from tests import store
from tests.browsers import browse_as, cart, given, put, read
from tests.interleaving import HOLDS_ROWS, somebody_waits, together
from tests.people import is_in, key_of, row_of
from tests.renewals import AFTER, DUE, GRACE, OPEN_STEPS, renewed
from tests.store import SessionStore, later
from tests.urls import urlpatterns as site

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.usefixtures("keys_change"),
    pytest.mark.transports("cookie", "header"),
]


def flush(request):
    """Has no use for what it ends."""
    request.session.flush()
    return HttpResponse("flushed")


urlpatterns = [*site, path("flush/", flush)]


# Twenty requests at that moment.


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["read", "write"])
@pytest.mark.standard("ASVS-15.4.2")
def test_twenty_requests_at_that_moment(shopper, monkeypatch, reused, caplog, what):
    browser = shopper()
    old = key_of(browser)
    # Each has read its session, and its view is done.
    everybody = threading.Barrier(20)
    finish = SessionStore.finish

    def all_at_once(self, answered):
        everybody.wait(30)
        finish(self, answered)

    responses = []

    def request(number):
        tab = browse_as(browser, old)
        response = read(tab) if what == "read" else put(tab, **{f"tab{number}": "here"})
        responses.append(response)

    with later(DUE):
        with monkeypatch.context() as patch:
            patch.setattr(SessionStore, "finish", all_at_once)
            together(*[lambda number=number: request(number) for number in range(20)])
        assert [response.status_code for response in responses] == [200] * 20
        if not any(given(response) for response in responses):
            # Nobody waits: each has found that another one was just writing. The next one renews.
            responses.append(read(browse_as(browser, old)))
        (new,) = {given(response) for response in responses} - {None}
        assert new != old
        if what == "write" and not HOLDS_ROWS:  # otherwise nobody waits for them
            assert all(given(response) for response in responses)
        # One successor, and what leads to it.
        assert len(store.payloads()) == 2
        assert UserSession.objects.get().digest == digest_of(new)
        written = {f"tab{number}": "here" for number in range(20)} if what == "write" else {}
        for key in (old, new):
            assert read(browse_as(browser, key)).json() == {"cart": "teapot", **written}
    for seconds in (DUE + 10, DUE + 10 + 2 * GRACE, 2 * DUE + 10):
        with later(seconds):
            assert is_in(browse_as(browser, new))
    assert not reused
    assert "did not answer" not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_hundred_requests_of_ten_tabs_and_nobody_arranges_them(shopper, reused, caplog):
    """Each tab keeps the cookie that it was given last."""
    browser = shopper()
    old = key_of(browser)
    given_out = []

    def use(number):
        tab = browse_as(browser, old)
        for turn in range(10):
            response = put(tab, **{f"tab{number}": turn})
            assert response.status_code == 200
            given_out.append(given(response))

    written = {f"tab{number}": "9" for number in range(10)}
    with later(DUE):
        together(*[lambda number=number: use(number) for number in range(10)])
        (key,) = {*given_out} - {None}
        assert key != old
        assert len(store.payloads()) == 2
    for seconds in (DUE + 10, DUE + 80, DUE + 80 + 2 * GRACE):
        with later(seconds):
            tab = browse_as(browser, key)
            assert read(tab).json() == {"cart": "teapot", **written}
            key = key_of(tab)
    assert not reused
    assert "did not answer" not in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("theirs", ["read", "write"])
@pytest.mark.parametrize("mine", ["read", "write"])
@pytest.mark.parametrize("step", OPEN_STEPS)
@pytest.mark.standard("ASVS-15.4.2")
def test_another_request_between_two_steps(shopper, at, reused, step, mine, theirs):
    browser = shopper()
    old = key_of(browser)
    responses = []

    def send(what, name):
        tab = browse_as(browser, old)
        response = read(tab) if what == "read" else put(tab, **{name: "dark"})
        assert response.status_code == 200
        responses.append(response)

    with later(DUE):
        pending = at(step, lambda: together(lambda: send(theirs, "theirs")))
        send(mine, "mine")
        assert not pending
    # Who is told a key is told the one that there is.
    (new,) = {given(response) for response in responses} - {None}
    assert UserSession.objects.get().digest == digest_of(new)
    assert new != old
    assert len(store.payloads()) == 2
    names = [name for name, what in [("mine", mine), ("theirs", theirs)] if what == "write"]
    for seconds in (DUE + 10, DUE + 10 + 2 * GRACE):
        with later(seconds):
            written = read(browse_as(browser, new)).json()
            assert written == {"cart": "teapot", **dict.fromkeys(names, "dark")}
    assert not reused


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("step", OPEN_STEPS)
@pytest.mark.parametrize("how", ["revoked", "signed out"])
@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2")
def test_ended_between_two_steps(shopper, at, step, how):
    browser = shopper()
    old = key_of(browser)

    def end():
        if how == "revoked":
            assert UserSession.objects.revoke() == 1
        else:
            browse_as(browser, old).post("/logout/")

    with later(DUE):
        pending = at(step, lambda: together(end))
        response = put(browser, theme="dark")
        assert not pending
        assert response.status_code in (200, 302)
    reason = EndReason.REVOKED if how == "revoked" else EndReason.LOGOUT
    assert UserSession.objects.get().end_reason == reason
    for key in {old, given(response)} - {None, ""}:
        assert not is_in(browse_as(browser, key))
    with later(DUE + 70):
        for key in {old, given(response)} - {None, ""}:
            assert not is_in(browse_as(browser, key))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("step", OPEN_STEPS)
@pytest.mark.standard("ASVS-15.4.2")
def test_given_another_key_between_two_steps(shopper, at, reused, step):
    """By a change of the password in another tab, say."""
    browser = shopper()
    old = key_of(browser)
    other = SessionStore(old)

    def cycle():
        other.get("")
        other.cycle_key()

    with later(DUE):
        pending = at(step, lambda: together(cycle))
        response = read(browser)
        assert not pending
        assert response.status_code == 200
    assert UserSession.objects.get().digest == digest_of(other.session_key)
    assert given(response) in (None, other.session_key)
    with later(DUE + 70):
        assert cart(browse_as(browser, other.session_key)) == "teapot"
        assert not is_in(browse_as(browser, old))
    assert not reused


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("step", ["read", "verify", "note", "touch"])
def test_another_request_whose_clock_is_ahead(shopper, at, reused, step):
    """For one of them it is time, for the other it is not."""
    browser = shopper()
    old = key_of(browser)
    tab = browse_as(browser, old)

    def theirs():
        with later(5):
            read(tab)

    with later(AFTER - 3):
        pending = at(step, lambda: together(theirs))
        response = read(browser)
        assert not pending
    assert key_of(tab) != old
    assert given(response) in (None, key_of(tab))
    with later(DUE + 2 * GRACE):
        assert cart(tab) == "teapot"
    assert not reused


# A request that is under way meanwhile.


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("step", ["read", "remove"])
@pytest.mark.parametrize("how", ["/logout/", "/flush/"])
@pytest.mark.standard("ASVS-7.4.1", "ASVS-15.4.2", "WSTG-SESS-06")
def test_who_signs_out_meanwhile_has_signed_out(shopper, at, how, step):
    browser = shopper()
    old = key_of(browser)
    tab = browse_as(browser, old)
    with later(DUE):
        if how == "/flush/" or step == "remove":
            pending = at("remove", lambda: together(lambda: read(tab)))
        else:
            pending = at("read", lambda: together(lambda: read(tab)), after=True)
        browser.post(how)
        assert not pending
    assert key_of(tab) != old
    with later(DUE + 5):
        assert not is_in(browse_as(browser, key_of(tab)))
        assert not is_in(browse_as(browser, old))
    assert UserSession.objects.get().end_reason == EndReason.LOGOUT
    assert UserSession.objects.alive() == []


@pytest.mark.parametrize("how", ["/logout/", "/flush/"])
@pytest.mark.standard("ASVS-7.4.1", "WSTG-SESS-06")
def test_who_signs_out_with_the_old_key_has_signed_out(shopper, how):
    """The answer with the new one was lost, or not there yet."""
    browser = shopper()
    old = renewed(browser)
    with later(DUE + 5):
        browse_as(browser, old).post(how)
        assert UserSession.objects.get().end_reason == EndReason.LOGOUT
        for key in (old, key_of(browser)):
            assert not is_in(browse_as(browser, key))


def test_deleting_a_session_by_its_old_key_ends_it(shopper, drive):
    browser = shopper()
    old = renewed(browser)
    drive(SessionStore(), "delete", old)
    assert UserSession.objects.get().end_reason == EndReason.LOGOUT
    assert not is_in(browser)


@pytest.mark.parametrize("operation", ["save", "cycle_key", "reauthenticate"])
@pytest.mark.standard("ASVS-15.4.2")
def test_what_was_loaded_before_is_written_to_the_successor(shopper, drive, operation):
    browser = shopper()
    old, handle = key_of(browser), UserSession.objects.get().pk
    slow = SessionStore(old)
    drive(slow, "get", "cart")
    slow["theme"] = "dark"
    with later(DUE):
        put(browser, language="de")
        renewed_key = key_of(browser)
        assert renewed_key != old
        drive(slow, operation)
        if operation == "save":
            assert slow.session_key == renewed_key
            assert slow.has_new_key
        else:
            assert slow.session_key not in (old, renewed_key)
            assert not SessionStore().exists(renewed_key)
        kept = {"cart": "teapot", "theme": "dark", "language": "de"}
        session = SessionStore(slow.session_key)
        assert {name: session.get(name) for name in kept} == kept
    assert UserSession.objects.get().pk == handle
    assert row_of(browse_as(browser, slow.session_key)).ended_at is None


def test_a_save_without_a_load_is_written_to_the_successor(shopper, drive):
    """As by clear(), which takes the place of all that is there; but signs out."""
    browser = shopper()
    old = renewed(browser)
    session = SessionStore(old)
    session.clear()
    session["cart"] = "kettle"
    drive(session, "save")
    assert UserSession.objects.get().end_reason == EndReason.LOGOUT
    assert SessionStore(session.session_key).load() == {"cart": "kettle"}
    for key in (old, key_of(browser)):
        assert SessionStore(key).load() == {}


@pytest.mark.django_db(transaction=True)
@pytest.mark.isolation
@pytest.mark.parametrize("operation", ["cycle_key", "save"])
@pytest.mark.standard("ASVS-15.4.2")
def test_nobody_waits_for_each_other(shopper, at, caplog, operation):
    """Both write the row of the session and what is stored of it, in a transaction."""
    browser = shopper()
    other = SessionStore(key_of(browser))
    other.get("")
    threads, errors = [], []

    def act():
        try:
            other["theme"] = "dark"
            getattr(other, operation)()
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    def start_and_wait():
        thread = threading.Thread(target=act)
        threads.append(thread)
        thread.start()
        while HOLDS_ROWS and thread.is_alive() and not somebody_waits():
            pass

    with later(DUE):
        pending = at("replace", start_and_wait, after=True)
        response = read(browser)
        assert not pending
        assert response.status_code == 200
        threads[0].join(60)
        assert not threads[0].is_alive()
        assert not errors
    assert "did not answer" not in caplog.text
    assert UserSession.objects.get().digest == digest_of(other.session_key)
    assert SessionStore(other.session_key)["theme"] == "dark"


@pytest.mark.redis
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("operation", ["cycle_key", "reauthenticate"])
def test_a_new_key_for_other_reasons_takes_the_row_first(shopper, at, drive, operation):
    """Where it is not one transaction: what is stored follows when the renewal is over."""
    browser = shopper()
    old, other = key_of(browser), SessionStore(key_of(browser))
    other.get("")
    has_row, is_over, errors = threading.Event(), threading.Event(), []

    def wait():
        has_row.set()
        assert is_over.wait(10)

    def act():
        try:
            drive(other, operation)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    def start_and_wait():
        thread.start()
        assert has_row.wait(10)

    thread = threading.Thread(target=act)
    with later(DUE):
        at("move", wait)
        at("follow", start_and_wait)
        response = read(browser)
        is_over.set()
        thread.join(60)
    assert not thread.is_alive()
    assert not errors
    assert given(response) in (None, other.session_key)
    assert not is_in(browse_as(browser, old))
    assert UserSession.objects.get().digest == digest_of(other.session_key)
    assert cart(browse_as(browser, other.session_key)) == "teapot"

"""Many use one code at the same time, and an app ends while its code is used."""

import threading

import pytest

from django_sessionkit import handover
from django_sessionkit.models import EndReason, UserSession
from tests import interleaving
from tests.apps import App
from tests.browsers import PAGE, Browser
from tests.interleaving import elsewhere, together
from tests.people import is_in, told
from tests.store import payloads

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.isolation,
]

CROWD = 20


@pytest.fixture
def app(alice):
    app = App()
    app.sign_in()
    return app


def url_of(app):
    return f"/account/sessions/hand-over/{app.code()}/"


def test_of_twenty_who_use_a_code_one_is_signed_in(app):
    url, start, answers = url_of(app), threading.Barrier(CROWD), []
    browsers = [Browser(headers=PAGE) for _ in range(CROWD)]

    def use(browser):
        start.wait(30)
        answers.append(browser.get(url).status_code)

    together(*[lambda browser=browser: use(browser) for browser in browsers])
    assert sorted(answers) == [302] + (CROWD - 1) * [410]
    assert [is_in(browser) for browser in browsers].count(True) == 1
    assert UserSession.objects.filter(transport="cookie").count() == 1
    assert len(payloads()) == 2


def test_twenty_codes_are_twenty_sessions(app):
    urls = [url_of(app) for _ in range(CROWD)]
    browsers = [Browser(headers=PAGE) for _ in range(CROWD)]
    for browser, url in zip(browsers, urls, strict=True):
        assert browser.get(url).status_code == 302
    UserSession.objects.filter(transport="header").revoke()
    assert {told(browser) for browser in browsers} == {EndReason.PARENT}
    assert payloads() == {}


def end_app():
    elsewhere(UserSession.objects.filter(transport="header").revoke)


@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.parametrize(
    ("owner", "step"), [(handover, "login"), (handover, "local_url")], ids=["before", "after"]
)
def test_an_app_that_ends_while_its_code_is_used(app, monkeypatch, owner, step):
    """Whoever ends it finds the new session, or the new session finds it ended."""
    browser, url = Browser(headers=PAGE), url_of(app)
    left = interleaving.before(monkeypatch, owner, step, end_app)
    browser.get(url)
    assert not left
    assert not is_in(browser)
    assert UserSession.objects.get(transport="cookie").end_reason == EndReason.PARENT
    assert payloads() == {}

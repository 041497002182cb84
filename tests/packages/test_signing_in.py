"""Other ways to sign in: django-allauth, mozilla-django-oidc, django-cas-ng."""

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from django.urls import clear_url_caches, path
from django_cas_ng.models import SessionTicket
from django_cas_ng.views import LogoutView

from django_sessionkit.models import EndReason, UserSession
from tests.browsers import SCRIPT
from tests.documents import blocks_of, run_block
from tests.packages import provider
from tests.packages.urls import urlpatterns as site
from tests.people import FIREFOX, is_in, key_of, only_row, row_of
from tests.renewals import AFTER, GRACE
from tests.store import DAY

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

urlpatterns = [*site]


@pytest.fixture
def identities(settings):
    """A server of identities, which both packages ask."""
    with provider.serve() as url:
        settings.CAS_SERVER_URL = f"{url}/cas/"
        settings.OIDC_OP_AUTHORIZATION_ENDPOINT = f"{url}/authorize"
        settings.OIDC_OP_TOKEN_ENDPOINT = f"{url}/token"
        settings.OIDC_OP_USER_ENDPOINT = f"{url}/userinfo"
        yield url


@pytest.fixture
def keys_change(policy):
    policy(renew_after=AFTER, renew_grace=GRACE)


# django-allauth.


def test_the_list_of_allauth_signs_nobody_out_after_a_key_has_renewed_itself(
    clock, keys_change, enter, alice
):
    browser = enter("alice", "secret")
    assert browser.get("/accounts/sessions/").status_code == 200  # its middleware notes the key
    noted = key_of(browser)
    for _ in range(2):
        clock.move(seconds=AFTER + GRACE)
        assert is_in(browser)
        clock.move(seconds=GRACE)
        assert is_in(browser)
    assert key_of(browser) != noted
    page = browser.get("/accounts/sessions/")
    assert page.status_code == 200
    assert is_in(browser)
    assert only_row().ended_at is None


def app_sign_in(app):
    fields = {"username": "alice", "password": "secret"}
    url = "/_allauth/app/v1/auth/login"
    answer = app.post(url, fields, content_type="application/json")
    assert answer.status_code == 200
    return answer.json()["meta"]["session_token"]


def test_an_app_of_allauth_stays_signed_in_while_it_is_used_and_is_a_device(
    clock, browse, alice, policy, settings
):
    # These two wrap the user of the cookie, so that allauth cannot exchange it.
    settings.MIDDLEWARE = [
        name for name in settings.MIDDLEWARE if not name.startswith(("hijack", "impersonate"))
    ]
    policy(idle=600)
    app = browse(**{"user-agent": FIREFOX, **SCRIPT})
    token = app_sign_in(app)
    assert only_row().user_agent == FIREFOX
    for _ in range(5):
        clock.move(seconds=400)
        answer = app.get("/_allauth/app/v1/auth/session", headers={"x-session-token": token})
        assert answer.json()["data"]["user"]["username"] == "alice"
        assert only_row().last_seen_at == datetime.now(UTC)
    clock.move(seconds=600)
    answer = app.get("/_allauth/app/v1/auth/session", headers={"x-session-token": token})
    assert answer.status_code in (401, 410)


# mozilla-django-oidc.


def test_whoever_signs_in_by_openid_connect_has_a_device(clock, browse, alice, identities):
    browser = browse(**{"user-agent": FIREFOX})
    sign_in_at(identities, browser, "/oidc/authenticate/")
    assert is_in(browser)
    assert (row_of(browser).user_agent, row_of(browser).ip) == (FIREFOX, "127.0.0.1")
    clock.move(seconds=100)
    assert is_in(browser)
    assert row_of(browser).last_seen_at == datetime.now(UTC)


def test_whoever_signs_in_by_openid_connect_proves_who_they_are_by_that_and_not_by_coming_back(
    clock, browse, alice, identities, settings
):
    alice.set_unusable_password()
    alice.save()
    settings.LOGIN_URL = "oidc_authentication_init"
    browser = browse()
    sign_in_at(identities, browser, "/oidc/authenticate/")
    clock.move(seconds=1000)
    to = "/oidc/authenticate/?next=/pay/"
    assert browser.get("/pay/").headers["Location"] == to
    sign_in_at(identities, browser, to, "/pay/")
    assert browser.get("/pay/").headers["Location"] == to
    browser.post("/logout/")
    sign_in_at(identities, browser, to, "/pay/")
    assert browser.get("/pay/").status_code == 200


def sign_in_at(identities, browser, url, leads_to="/"):
    """Sign in as Alice at the server of identities, to which this URL leads."""
    asked = browser.get(url).headers["Location"]
    assert asked.startswith(f"{identities}/authorize")
    query = {name: value for name, (value,) in parse_qs(urlsplit(asked).query).items()}
    answer = {"state": query["state"], "code": f"alice:{query['nonce']}"}
    assert browser.get("/oidc/callback/", answer).headers["Location"] == leads_to


# django-cas-ng.


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The recipe of the docs, in use."""
    (block,) = [
        block for block in blocks_of("docs/compatibility.md") if "django_cas_ng" in block.text
    ]
    names = run_block(block, tmp_path)
    views = [
        path("cas/login/", names["SignInView"].as_view()),
        path("cas/logout/", LogoutView.as_view()),
    ]
    monkeypatch.setattr(f"{__name__}.urlpatterns", [*site, *views])
    clear_url_caches()
    yield names
    clear_url_caches()


@pytest.fixture
def by_cas(browse, alice, identities, recipe):
    browser = browse(**{"user-agent": FIREFOX})
    assert browser.get("/cas/login/", {"ticket": "ST-1-alice"}).status_code == 302
    assert is_in(browser)
    return browser


def log_out_everywhere(browse):
    """What the CAS server sends when a user signs out there."""
    request = {"logoutRequest": provider.LOGOUT.format(ticket="ST-1-alice")}
    assert browse().post("/cas/login/", request).status_code == 302


def test_a_sign_out_at_the_cas_server_ends_the_session_however_old_its_key_is(
    clock, keys_change, browse, by_cas
):
    before = key_of(by_cas)
    for _ in range(60):
        clock.move(seconds=DAY / 20)
        assert is_in(by_cas)
    assert key_of(by_cas) != before
    log_out_everywhere(browse)
    assert only_row().end_reason == EndReason.LOGOUT
    assert not is_in(by_cas)
    assert not SessionTicket.objects.exists()


def test_no_table_of_cas_holds_a_session_key(by_cas):
    ticket = SessionTicket.objects.get()
    assert ticket.session_key == only_row().pk.hex
    by_cas.get("/cas/logout/")
    assert UserSession.objects.get().ended_at
    assert not SessionTicket.objects.exists()


def test_a_sign_out_at_the_cas_server_ends_sessions_from_before_the_recipe(browse, by_cas):
    SessionTicket.objects.update(session_key=key_of(by_cas))
    log_out_everywhere(browse)
    assert only_row().end_reason == EndReason.LOGOUT
    assert not is_in(by_cas)

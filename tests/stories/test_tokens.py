"""A token speaks for a session to other services: who that is, and for how long."""

import uuid

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import path
from jwt import ExpiredSignatureError

from django_sessionkit import signing_keys
from django_sessionkit.exceptions import InvalidToken, NoToken
from django_sessionkit.models import UserSession
from django_sessionkit.tokens import authenticate, averify, issue, verify
from tests import tokens as site
from tests.accounts import disabled
from tests.moving import DATABASE, HERE, generation, old_session, with_cookie
from tests.pages import PROVE
from tests.people import key_of, only_row, post_sign_in, row_of, who
from tests.policies import LOCK
from tests.store import SessionStore
from tests.tokens import AUDIENCE, ISSUER, JWKS, decoded, refusal_of, token_of, verified

BACKEND = "django.contrib.auth.backends.ModelBackend"


def act(request):
    """Staff act as Alice, as django-hijack does it."""
    staff = request.user
    login(request, User.objects.get(username="alice"), BACKEND)
    request.session["hijack_history"] = [str(staff.pk)]
    return site.HttpResponse("welcome")


def sign_in_and_take(request):
    """Signs Alice in, and answers at once with a token."""
    login(request, User.objects.get(username="alice"), BACKEND)
    request.session.save()  # the row is written with the session
    return site.give_token(request)


urlpatterns = [*site.urlpatterns, path("act/", act), path("take/", sign_in_and_take)]

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site(__name__),
    pytest.mark.usefixtures("tokens"),
]

# Functions for SESSIONKIT_TOKEN_CLAIMS.


def roles(user, session):
    assert session.handle
    return {"roles": [user.username], "acr": "2", "amr": ["pwd", "otp"]}


def lies(user, session):
    return {"sub": "1", "exp": 2**40}


def invents_a_proof(user, session):
    return {"auth_time": 0}


def claims_of(browser):
    return verify(token_of(browser))


def invalid(token, **options):
    """Return why a token is not valid."""
    with pytest.raises(InvalidToken) as found:
        verify(token, **options)
    assert found.value.code in str(found.value)
    return found.value.code


def public_keys(client):
    return client.get(JWKS).json()


# What a token says.


def test_token_says_who_which_session_and_for_how_long(signed_in, alice, clock):
    browser = signed_in()
    row, token = row_of(browser), token_of(browser)
    now = int(row.started_at.timestamp())
    header, claims = decoded(token)
    (key,) = signing_keys.keys()
    assert header == {"alg": "ES256", "kid": key.kid, "typ": "at+jwt"}
    assert len(claims.pop("jti")) == 16
    assert claims == {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(alice.pk),
        "sid": str(row.pk),
        "iat": now,
        "exp": now + 300,
        "auth_time": now,
        "acr": "1",
    }
    assert decoded(token_of(browser))[1]["jti"] != decoded(token)[1]["jti"]
    assert key_of(browser) not in token


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_service_verifies_tokens_with_the_public_keys_alone(signed_in, client, settings, algorithm):
    settings.SESSIONKIT_TOKEN_ALGORITHM = algorithm
    signing_keys.retire(signing_keys.keys()[0].kid)  # in place of it, there is one of this kind
    browser = signed_in()
    jwks = public_keys(client)
    token = token_of(browser)
    assert decoded(token)[0]["alg"] == jwks["keys"][0]["alg"] == algorithm
    assert verified(token, jwks) == verify(token)
    assert not {"d", "k"} & set(jwks["keys"][0])


def test_shared_key_is_never_published(signed_in, client, settings):
    settings.SESSIONKIT_TOKEN_ALGORITHM = "HS256"
    signing_keys.retire(signing_keys.keys()[0].kid)
    token = token_of(signed_in())
    assert decoded(token)[0]["alg"] == "HS256"
    assert verify(token)["iss"] == ISSUER
    assert public_keys(client) == {"keys": []}


def test_token_is_for_its_audience(signed_in):
    session = SessionStore(key_of(signed_in()))
    token = issue(session, audience="payments")
    assert verify(token, audience="payments")["aud"] == "payments"
    assert invalid(token) == "wrong_audience"
    assert invalid(issue(session), audience="payments") == "wrong_audience"


def test_site_is_the_issuer_and_the_audience_by_default(signed_in, settings):
    settings.SESSIONKIT_TOKEN_ISSUER = settings.SESSIONKIT_TOKEN_AUDIENCE = ""
    settings.SESSIONKIT_SITE_URL = "https://www.example.com"
    claims = claims_of(signed_in())
    assert claims["iss"] == claims["aud"] == "https://www.example.com"


def test_there_are_no_tokens_without_an_issuer(signed_in, settings):
    session = SessionStore(key_of(signed_in()))
    token = issue(session)
    settings.SESSIONKIT_TOKEN_ISSUER = ""
    for use in (lambda: issue(session), lambda: verify(token)):
        with pytest.raises(ImproperlyConfigured, match="SESSIONKIT_TOKEN_ISSUER"):
            use()


# What the site adds.


def test_site_adds_claims_and_says_how_somebody_has_signed_in(signed_in, settings):
    settings.SESSIONKIT_TOKEN_CLAIMS = f"{__name__}.roles"
    claims = claims_of(signed_in())
    assert claims["roles"] == ["alice"]
    assert (claims["acr"], claims["amr"]) == ("2", ["pwd", "otp"])


@pytest.mark.parametrize(
    ("function", "named"), [("lies", "exp, sub"), ("invents_a_proof", "auth_time")]
)
def test_site_does_not_say_what_only_the_kit_may(signed_in, settings, function, named):
    settings.SESSIONKIT_TOKEN_CLAIMS = f"{__name__}.{function}"
    with pytest.raises(ValueError, match=f"must not say {named}."):
        issue(SessionStore(key_of(signed_in())))


# How certain it is who that is.


def test_token_says_whether_somebody_has_just_proved_who_they_are(signed_in, policy, clock):
    policy(recent=600)
    browser = signed_in()
    then = claims_of(browser)["auth_time"]
    clock.move(minutes=10)
    assert (claims_of(browser)["acr"], claims_of(browser)["auth_time"]) == ("1", then)
    clock.move(seconds=1)
    assert (claims_of(browser)["acr"], claims_of(browser)["auth_time"]) == ("0", then)
    browser.post(PROVE, {"password": "secret"})
    claims = claims_of(browser)
    assert (claims["acr"], claims["auth_time"]) == ("1", then + 601)
    assert claims["iat"] == claims["auth_time"]


def test_token_of_a_session_that_has_moved_here_claims_no_proof(browse, alice):
    with generation(DATABASE):
        session = old_session(DATABASE, alice)
    with generation(HERE, (DATABASE,)):
        claims = claims_of(with_cookie(browse(), session))
    assert only_row().authenticated_at is None
    assert "auth_time" not in claims
    assert claims["acr"] == "0"


def test_token_names_the_staff_who_act_as_its_user(browse, alice, root):
    staff = browse()
    post_sign_in(staff, "root")
    staff.get("/act/")
    claims = claims_of(staff)
    assert (claims["sub"], claims["act"]) == (str(alice.pk), {"sub": str(root.pk)})


# For how long.


def test_token_expires_after_five_minutes_and_ten_seconds(signed_in, client, clock):
    token, jwks = token_of(signed_in()), public_keys(client)
    clock.move(seconds=299)
    assert verified(token, jwks)
    clock.move(seconds=10)
    assert verify(token)
    with pytest.raises(ExpiredSignatureError):
        verified(token, jwks)
    clock.move(seconds=1)
    assert invalid(token) == "expired"


def test_site_says_for_how_long_tokens_are_valid(signed_in, settings, clock):
    settings.SESSIONKIT_TOKEN_AGE = 60
    claims = claims_of(signed_in())
    assert claims["exp"] - claims["iat"] == 60


@pytest.mark.parametrize("fields", [{"idle": 120}, {"idle": 120, "lock": True}, {"absolute": 120}])
def test_token_does_not_outlive_its_session(signed_in, policy, clock, fields):
    policy(**fields)
    claims = claims_of(signed_in())
    assert claims["exp"] - claims["iat"] == 120


def test_activity_makes_the_next_token_last_longer(signed_in, policy, clock):
    policy(idle=120)
    browser = signed_in()
    clock.move(seconds=60)
    who(browser)
    claims = claims_of(browser)
    assert claims["exp"] - claims["iat"] == 120


def test_session_in_its_last_second_gets_none(signed_in, clock):
    session = SessionStore(key_of(signed_in()))
    session.set_expiry(0.5)
    session.save()
    with pytest.raises(NoToken, match="ended"):
        issue(session)


# Which session gets none.


def test_visitor_gets_none(browse):
    browser = browse()
    assert refusal_of(browser) == "not_signed_in"
    browser.post("/write/", {"cart": "teapot"})
    assert refusal_of(browser) == "not_signed_in"


def test_session_of_another_engine_gets_none(client, alice, settings):
    settings.SESSION_ENGINE = DATABASE
    client.force_login(alice)
    with pytest.raises(NoToken, match="not_signed_in"):
        issue(client.session)


def test_locked_session_gets_none(signed_in, policy, clock):
    policy(**LOCK)
    browser = signed_in()
    clock.move(seconds=600)
    assert refusal_of(browser) == "locked"
    browser.post(PROVE, {"password": "secret"})
    assert claims_of(browser)


def test_session_that_has_just_begun_gets_one(browse, alice):
    assert verify(browse().get("/take/").text)["sub"] == str(alice.pk)


def test_session_that_waits_for_room_gets_none(signed_in, policy, browse):
    policy(limit=1, on_limit="ask")
    signed_in()
    browser = browse()
    assert browser.get("/take/").text == "locked"
    assert refusal_of(browser) == "locked"


def test_ended_session_gets_none(signed_in):
    browser = signed_in()
    UserSession.objects.revoke()
    assert refusal_of(browser) == "not_signed_in"


def test_session_that_ends_meanwhile_gets_none(signed_in):
    session = SessionStore(key_of(signed_in()))
    assert session.handle
    UserSession.objects.revoke()
    with pytest.raises(NoToken, match="ended"):
        issue(session)


def test_session_of_a_user_who_is_disabled_behind_our_back_gets_none(signed_in, alice):
    browser = signed_in()
    session = SessionStore(key_of(browser))
    User.objects.update(is_active=False)
    with pytest.raises(NoToken, match="ended"):
        issue(session)


# The session ends, and the token?


def test_token_of_an_ended_session_is_valid_until_somebody_asks(signed_in, client):
    token, jwks = token_of(signed_in()), public_keys(client)
    assert verify(token, check_session=True)
    UserSession.objects.revoke()
    assert verify(token) == verified(token, jwks)
    assert invalid(token, check_session=True) == "session_ended"


def test_token_of_a_locked_session_is_valid_until_somebody_asks(signed_in, policy, clock):
    policy(idle=300, lock=True)
    token = token_of(signed_in())
    clock.move(seconds=305)
    assert verify(token)
    assert invalid(token, check_session=True) == "session_ended"


def test_token_of_a_session_that_has_to_wait_is_valid_until_somebody_asks(signed_in):
    token = token_of(signed_in())
    UserSession.objects.update(waits=True)  # the limit of its user was lowered
    assert verify(token)
    assert invalid(token, check_session=True) == "session_ended"


def test_token_of_a_disabled_user_is_valid_until_somebody_asks(signed_in, alice):
    token = token_of(signed_in())
    User.objects.update(is_active=False)
    assert verify(token)
    assert invalid(token, check_session=True) == "user_disabled"
    with pytest.raises(InvalidToken, match="user_disabled"):
        authenticate(token)


def test_token_of_a_user_who_is_gone_is_valid_until_somebody_asks(signed_in, alice):
    token = token_of(signed_in())
    disabled(alice)
    alice.delete()
    assert verify(token)
    assert invalid(token, check_session=True) == "session_ended"
    with pytest.raises(InvalidToken, match="user_disabled"):
        authenticate(token)


def test_token_does_not_go_over_to_the_next_user_of_a_session(signed_in, bob):
    browser = signed_in()
    token = token_of(browser)
    UserSession.objects.filter(pk=row_of(browser).pk).update(user=bob)
    assert invalid(token, check_session=True) == "session_ended"


def test_verifying_works_in_async_code_too(signed_in):
    token = token_of(signed_in())
    assert async_to_sync(averify)(token, audience=AUDIENCE, check_session=True) == verify(token)


# What it costs.


def test_token_costs_one_statement_and_verifying_costs_none(signed_in, django_assert_num_queries):
    session = SessionStore(key_of(signed_in()))
    assert session.handle
    issue(session)  # the keys are read for the first time
    with django_assert_num_queries(1):
        token = issue(session)
    with django_assert_num_queries(0):
        claims = verify(token)
    with django_assert_num_queries(1):
        verify(token, check_session=True)
    with django_assert_num_queries(1):
        authenticate(token, check_session=True)
    assert uuid.UUID(claims["sid"]) == session.handle


def test_keys_are_read_once_a_minute(signed_in, clock):
    token = token_of(signed_in())
    for seconds, queries in [(0, 0), (59, 0), (1, 1), (59, 0), (1, 1)]:
        clock.move(seconds=seconds)
        with CaptureQueriesContext(connection) as asked:
            verify(token)
        assert len(asked) == queries


def test_keys_are_read_again_after_the_clock_was_put_back(signed_in, clock):
    token = token_of(signed_in())
    clock.move(seconds=-5)
    with CaptureQueriesContext(connection) as asked:
        verify(token)
    assert len(asked) == 1

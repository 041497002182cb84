"""The keys that sign tokens: the first, the next, one that was stolen, and how they rest."""

import threading

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.serializers import serialize
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from jwt import InvalidTokenError

from django_sessionkit import key_material, signing_keys
from django_sessionkit.exceptions import InvalidToken
from django_sessionkit.models import SigningKey
from django_sessionkit.signing_keys import JWKS_AGE, KEPT, LEEWAY, LONGEST_AGE, WAIT
from django_sessionkit.tokens import issue, verify
from tests import servers
from tests.people import key_of
from tests.store import SessionStore
from tests.tokens import JWKS, decoded, token_of, verified

pytestmark = [pytest.mark.django_db, pytest.mark.site("tests.tokens")]

keys_are_made = pytest.mark.usefixtures("tokens")


def kids(client):
    return [key["kid"] for key in client.get(JWKS).json()["keys"]]


def kid_of(token):
    return decoded(token)[0]["kid"]


def invalid(token):
    with pytest.raises(InvalidToken) as found:
        verify(token)
    return found.value.code


class Process:
    """Another process of the site, which keeps keys of its own."""

    def __init__(self):
        self.kept = {}

    def __enter__(self):
        self.others, signing_keys._kept = signing_keys._kept, self.kept

    def __exit__(self, *args):
        signing_keys._kept = self.others


# The first.


def test_no_key_no_token(laptop, settings):
    settings.SESSIONKIT_TOKEN_ISSUER = "https://shop.example"
    session = SessionStore(key_of(laptop))
    with pytest.raises(ImproperlyConfigured, match="tokenkeys --make"):
        issue(session)
    first = signing_keys.make()
    assert kid_of(issue(session)) == first.kid


def test_first_key_is_used_by_all_processes_at_once(laptop, settings):
    settings.SESSIONKIT_TOKEN_ISSUER = "https://shop.example"
    session, other = SessionStore(key_of(laptop)), Process()
    with other, pytest.raises(ImproperlyConfigured):
        issue(session)
    signing_keys.make()
    with other:
        assert verify(issue(session))


@keys_are_made
def test_first_key_is_made_once(client):
    before = kids(client)
    assert signing_keys.make() is None
    assert kids(client) == before


# The next.


@keys_are_made
def test_nobody_notices_that_the_key_changes(clock, laptop, client):
    """Services load the public keys when theirs are too old; other processes keep keys as well."""
    jwks, loaded_at, signers, others = {}, None, [], Process()
    token, rotated = token_of(laptop), None
    for seconds in range(0, LONGEST_AGE + WAIT + 180, 20):
        if seconds == 120:
            rotated = signing_keys.rotate()
        with others:
            if loaded_at is None or seconds - loaded_at >= JWKS_AGE:
                jwks, loaded_at = client.get(JWKS).json(), seconds
            assert verify(token)
        assert verified(token, jwks)
        session = SessionStore(key_of(laptop))
        for place in (Process(), others):
            with place:
                token = issue(session)
            assert verified(token, jwks)
        signers.append(kid_of(token))
        clock.move(seconds=20)
    old, new = dict.fromkeys(signers)
    assert new == rotated.kid
    assert signers.index(new) == (120 + WAIT) // 20
    assert kids(client) == [new]
    assert not SigningKey.objects.get(kid=old).verifies_until > timezone.now()


@keys_are_made
def test_tokens_of_the_old_key_are_valid_to_their_end(clock, laptop, settings):
    settings.SESSIONKIT_TOKEN_AGE = LONGEST_AGE
    signing_keys.rotate()
    clock.move(seconds=WAIT - 1)
    token = issue(SessionStore(key_of(laptop)))
    assert kid_of(token) == SigningKey.objects.get(number=1).kid
    clock.move(seconds=LONGEST_AGE + LEEWAY - 1)
    assert verify(token)
    clock.move(seconds=2)
    assert invalid(token) == "unknown_key"


@keys_are_made
def test_next_key_waits_once(clock, client):
    assert signing_keys.rotate()
    assert signing_keys.rotate() is None
    assert len(kids(client)) == 2
    clock.move(seconds=WAIT)
    assert signing_keys.rotate()
    assert len(kids(client)) == 3


def test_next_key_of_a_site_without_one_is_the_first():
    assert signing_keys.rotate().signs_from <= timezone.now()


@keys_are_made
def test_next_key_is_of_the_algorithm_in_the_settings(clock, laptop, settings):
    settings.SESSIONKIT_TOKEN_ALGORITHM = "EdDSA"
    before = token_of(laptop)
    signing_keys.rotate()
    clock.move(seconds=WAIT)
    after = token_of(laptop)
    assert [decoded(token)[0]["alg"] for token in (before, after)] == ["ES256", "EdDSA"]
    assert verify(after)


@keys_are_made
def test_private_keys_that_sign_nothing_any_more_are_removed(clock):
    signing_keys.rotate()
    clock.move(seconds=WAIT + LONGEST_AGE + LEEWAY)
    assert all(key.private for key in SigningKey.objects.all())
    signing_keys.rotate()
    old, *others = SigningKey.objects.order_by("number")
    assert bytes(old.private) == b""
    assert all(key.private for key in others)


# A stolen one.


@keys_are_made
def test_stolen_key_is_worth_nothing_at_once(laptop, client):
    token = token_of(laptop)
    new = signing_keys.retire(kid_of(token))
    assert invalid(token) == "unknown_key"
    assert kids(client) == [new.kid]
    assert kid_of(token_of(laptop)) == new.kid
    assert bytes(SigningKey.objects.get(kid=kid_of(token)).private) == b""


@keys_are_made
def test_stolen_key_is_worth_nothing_elsewhere_within_a_minute(clock, laptop):
    token, other = token_of(laptop), Process()
    with other:
        verify(token)
    signing_keys.retire(kid_of(token))
    clock.move(seconds=KEPT - 1)
    with other:
        assert verify(token)
    clock.move(seconds=1)
    with other:
        assert invalid(token) == "unknown_key"


@keys_are_made
def test_next_key_takes_the_place_of_a_stolen_one_at_once(laptop, client):
    old = token_of(laptop)
    waiting = signing_keys.rotate()
    assert signing_keys.retire(kid_of(old)).kid == waiting.kid
    assert kid_of(token_of(laptop)) == waiting.kid
    assert kids(client) == [waiting.kid]


@keys_are_made
def test_key_that_was_rotated_out_does_not_come_back(clock, laptop):
    old = kid_of(token_of(laptop))
    new = signing_keys.rotate()
    clock.move(seconds=WAIT)
    newest = signing_keys.retire(new.kid)
    assert newest.kid not in (old, new.kid)
    assert kid_of(token_of(laptop)) == newest.kid


@keys_are_made
def test_key_before_that_was_stolen_leaves_the_present_one_alone(clock, laptop):
    old = kid_of(token_of(laptop))
    new = signing_keys.rotate()
    clock.move(seconds=WAIT)
    assert signing_keys.retire(old).kid == new.kid
    assert SigningKey.objects.get(kid=new.kid).signs_from == new.signs_from
    assert signing_keys.retire(old) is None  # it has been retired already


@keys_are_made
def test_key_that_is_not_there_can_not_be_retired(client):
    before = kids(client)
    assert signing_keys.retire("nonsense") is None
    assert kids(client) == before


# Several at once.


@pytest.mark.django_db(transaction=True)
@keys_are_made
def test_two_who_make_the_next_key_at_once_make_one(monkeypatch):
    at_once(monkeypatch, signing_keys.rotate)
    assert SigningKey.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_two_who_make_the_first_key_at_once_make_one(monkeypatch):
    at_once(monkeypatch, signing_keys.make)
    assert SigningKey.objects.count() == 1


def at_once(monkeypatch, change):
    """Have two change the keys, each when the other has looked already. One finds nothing to do."""
    barrier, original, made = threading.Barrier(2, timeout=servers.PATIENCE), signing_keys._new, []

    def together(rows, signs_from):
        new = original(rows, signs_from)
        barrier.wait()
        return new

    def run():
        try:
            made.append(change())
        except Exception as error:
            made.append(error)
        finally:
            connection.close()

    monkeypatch.setattr(signing_keys, "_new", together)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(each).__name__ for each in made) == ["NoneType", "SigningKey"]


# How they rest.


@pytest.mark.parametrize("algorithm", key_material.ALGORITHMS)
def test_copy_of_the_table_signs_nothing(db, settings, algorithm):
    settings.SESSIONKIT_TOKEN_ALGORITHM = algorithm
    key = signing_keys.make()
    private = key_material.unseal(bytes(key.private), key.kid, algorithm)
    secret = private
    if algorithm != "HS256":
        pair = key_material.signs_with(private, algorithm)
        numbers = getattr(pair, "private_numbers", None)
        secret = numbers().private_value.to_bytes(32) if numbers else pair.private_bytes_raw()
        assert secret in private
    stored = bytes(SigningKey.objects.get().private)
    assert secret not in stored
    for form in (secret.hex(), str(int.from_bytes(secret))):
        assert form not in serialize("json", SigningKey.objects.all())
    assert str(SigningKey.objects.get()) == f"signing key {key.kid}"


@keys_are_made
def test_keys_open_with_a_former_secret_key(laptop, settings):
    token = token_of(laptop)
    session = SessionStore(key_of(laptop))
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], b"another"
    signing_keys.forget()
    assert verify(token)
    assert kid_of(issue(session)) == kid_of(token)


@keys_are_made
def test_without_its_secret_key_a_key_is_none(laptop, settings, client, caplog):
    token = token_of(laptop)
    session = SessionStore(key_of(laptop))
    assert session.handle
    settings.SECRET_KEY = "another"
    signing_keys.forget()
    assert invalid(token) == "unknown_key"
    assert client.get(JWKS).json() == {"keys": []}
    with pytest.raises(ImproperlyConfigured):
        issue(session)
    assert f"The signing key {kid_of(token)} does not open" in caplog.text
    new = signing_keys.retire(kid_of(token))
    assert kid_of(issue(session)) == new.kid


@keys_are_made
@pytest.mark.parametrize("changes", [{"kid": "of-another-row"}, {"algorithm": "HS256"}])
def test_key_in_another_row_is_none(laptop, changes):
    token = token_of(laptop)
    SigningKey.objects.update(**changes)
    signing_keys.forget()
    assert invalid(token) == "unknown_key"
    assert signing_keys.keys() == []


@keys_are_made
@pytest.mark.parametrize("private", [b"", b"short", b"n" * 100])
def test_key_that_somebody_else_has_written_into_the_table_is_none(laptop, private):
    own = key_material.new_private_key("ES256")
    now = timezone.now()
    rest = {"number": 2, "kid": "theirs", "algorithm": "ES256", "created_at": now}
    SigningKey.objects.create(**rest, private=private + own, signs_from=now)
    signing_keys.forget()
    token = token_of(laptop)
    assert kid_of(token) != "theirs"
    assert len(signing_keys.jwks()["keys"]) == 1


# Where they are published.


@keys_are_made
def test_public_keys_are_the_same_for_everybody(laptop, client):
    answer = laptop.get(JWKS)
    assert answer.headers["Content-Type"] == "application/jwk-set+json"
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert "Vary" not in answer.headers
    assert not answer.cookies
    with CaptureQueriesContext(connection) as asked:
        assert laptop.get(JWKS).json() == client.get(JWKS).json() == answer.json()
    assert not asked
    (key,) = answer.json()["keys"]
    assert sorted(key) == ["alg", "crv", "kid", "kty", "use", "x", "y"]


@keys_are_made
def test_public_keys_can_only_be_read(client):
    assert client.head(JWKS).status_code == 200
    assert client.post(JWKS).status_code == 405


@keys_are_made
def test_public_keys_need_no_sign_in(client, settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    assert client.get(JWKS).status_code == 200


@keys_are_made
def test_service_refuses_a_token_of_a_key_that_it_does_not_know(laptop, client):
    jwks = client.get(JWKS).json()
    signing_keys.retire(jwks["keys"][0]["kid"])
    with pytest.raises((KeyError, InvalidTokenError)):
        verified(token_of(laptop), jwks)


@keys_are_made
def test_tenants_have_keys_of_their_own(laptop, monkeypatch):
    """With django-tenants, the connection says whose tables it has."""
    token = token_of(laptop)
    monkeypatch.setitem(vars(connections["default"]), "schema_name", "tea")
    SigningKey.objects.all().delete()  # as if the tables were others
    assert invalid(token) == "unknown_key"
    monkeypatch.delitem(vars(connections["default"]), "schema_name")
    assert verify(token)

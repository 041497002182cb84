"""
Forged tokens, by the attacks that RFC 8725 (JSON Web Token Best Current Practices) lists: each is
refused, by one exception, and no view answers with an error.
"""

import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from django.db import connection
from django.test.utils import CaptureQueriesContext
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT

from django_sessionkit import signing_keys
from django_sessionkit.exceptions import InvalidToken
from django_sessionkit.key_material import public_jwk
from django_sessionkit.models import SigningKey
from django_sessionkit.tokens import LONGEST, authenticate, verify
from tests.store import later
from tests.tokens import AUDIENCE, ISSUER, JWKS, decoded, encoded, token_of

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.site("tests.tokens"),
    pytest.mark.usefixtures("tokens"),
]


@pytest.fixture
def token(laptop):
    """A token of Alice's session, which each attack begins with."""
    token = token_of(laptop)
    assert verify(token)
    return token


def refused(token, **options):
    """Return why a token is refused."""
    with pytest.raises(InvalidToken) as found:
        verify(token, **options)
    with pytest.raises(InvalidToken):
        authenticate(token, **options)
    return found.value.code


def own_key():
    return ec.generate_private_key(ec.SECP256R1())


def signed(header, claims, key=None):
    """Return a token that is signed with the key of the site, or with one of the attacker's."""
    signer = key or signing_keys.signing_key().signs_with
    unsigned = f"{encoded(header)}.{encoded(claims)}"
    pair = decode_dss_signature(signer.sign(unsigned.encode(), ec.ECDSA(hashes.SHA256())))
    signature = b"".join(number.to_bytes(32) for number in pair)  # RFC 7518 §3.4
    return f"{unsigned}.{encoded(signature)}"


def test_token_that_the_tests_sign_is_valid(token):
    """So what makes it invalid below is what a test has changed."""
    assert verify(signed(*decoded(token))) == verify(token)


# §2.1: the algorithm.


@pytest.mark.standard("ASVS-9.1.2", "WSTG-SESS-10")
@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 0, ["none"]])
@pytest.mark.parametrize("end", ["", "e30"])
def test_token_without_a_signature(token, alg, end):
    header, claims = decoded(token)
    forged = f"{encoded({**header, 'alg': alg})}.{encoded(claims)}.{end}"
    assert refused(forged) == "wrong_algorithm"


@pytest.mark.standard("ASVS-9.1.1")
def test_signature_that_was_taken_away(token):
    assert refused(token.rpartition(".")[0] + ".") == "wrong_signature"


@pytest.mark.standard("ASVS-9.1.2", "WSTG-SESS-10")
@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512", "hs256"])
def test_public_key_as_a_shared_secret(token, client, alg):
    header, claims = decoded(token)
    (jwk,) = client.get(JWKS).json()["keys"]
    public = jwt.PyJWK(jwk).key
    forms = [
        public.public_bytes(encoding, form)
        for encoding, form in [
            (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
            (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint),
        ]
    ]
    for secret in [*forms, json.dumps(jwk).encode(), jwk["x"].encode()]:
        unsigned = f"{encoded({**header, 'alg': alg})}.{encoded(claims)}"
        size = hashlib.new(f"sha{alg[2:]}").name
        signature = hmac.digest(secret, unsigned.encode(), size)
        assert refused(f"{unsigned}.{encoded(signature)}") == "wrong_algorithm"


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "RS256"])
def test_key_that_is_shared_is_used_with_no_other_algorithm(settings, laptop, alg):
    settings.SESSIONKIT_TOKEN_ALGORITHM = "HS256"
    signing_keys.retire(signing_keys.keys()[0].kid)
    header, claims = decoded(token_of(laptop))
    assert refused(signed({**header, "alg": alg}, claims, own_key())) == "wrong_algorithm"


@pytest.mark.parametrize("alg", ["RS256", "PS256"])
def test_token_of_another_kind_of_key(token, alg):
    header, claims = decoded(token)
    key = rsa.generate_private_key(65537, 2048)
    forged = jwt.encode(claims, key, algorithm=alg, headers={**header, "alg": alg})
    assert refused(forged) == "wrong_algorithm"


# §2.2 and §3.5: a weak secret. A key of HS256 is random, and as long as the hash.


def test_secret_key_of_the_site_signs_nothing(settings, laptop):
    settings.SESSIONKIT_TOKEN_ALGORITHM = "HS256"
    signing_keys.retire(signing_keys.keys()[0].kid)
    header, claims = decoded(token_of(laptop))
    unsigned = f"{encoded(header)}.{encoded(claims)}"
    for secret in (settings.SECRET_KEY.encode(), b"", b"secret"):
        signature = hmac.digest(secret, unsigned.encode(), "sha256")
        assert refused(f"{unsigned}.{encoded(signature)}") == "wrong_signature"


# §2.3, §2.4, §3.3, §3.4: what is encrypted, what is broken, what is not what it seems.


def test_token_in_a_token(token):
    header, _ = decoded(token)
    assert refused(signed({**header, "cty": "JWT"}, token)) == "malformed"
    assert refused(signed(header, token)) == "malformed"
    assert refused(signed(header, json.dumps(token))) == "malformed"


def test_token_that_is_encrypted(token, client):
    (jwk,) = client.get(JWKS).json()["keys"]
    public = JWK(**{**jwk, "alg": "ECDH-ES", "use": "enc"})
    outer = JWT(header={"alg": "ECDH-ES", "enc": "A256GCM", "cty": "JWT"}, claims=token)
    outer.make_encrypted_token(public)
    assert outer.serialize().count(".") == 4
    assert refused(outer.serialize()) == "malformed"


@pytest.mark.parametrize("signature", ["AAAA", "A" * 86, "!", "=", "A" * 85 + "="])
def test_signature_of_zeros_or_none(token, signature):
    """Zeros are valid for every text in some implementations of ECDSA: "psychic signatures"."""
    start = token.rpartition(".")[0]
    assert refused(f"{start}.{signature}") in ("wrong_signature", "malformed")


@pytest.mark.standard("ASVS-9.1.1")
@pytest.mark.parametrize("name", ["sub", "sid", "exp", "acr"])
def test_claim_that_was_changed(token, name):
    _, claims = decoded(token)
    start, _, end = token.split(".")
    changed = encoded({**claims, name: 2 * claims[name]})
    assert refused(f"{start}.{changed}.{end}") in ("wrong_signature", "malformed")


@pytest.mark.parametrize(
    "text",
    [
        *["", ".", "..", "...", "a.b", "a.b.c", "nonsense", "null.null.null", " ", "\0", "é.é.é"],
        *["\ud800.\ud800.\ud800", "bnVsbA.bnVsbA.", "W10.W10.", "MQ.MQ.MQ", "IiI.IiI.", "e30.e30."],
        *[None, 7, b"a.b.c", ["a.b.c"], {}],
    ],
)
def test_text_that_is_no_token(text):
    assert refused(text) == "malformed"


def test_signature_that_is_no_ascii(token):
    for end in ("é", "\ud800"):
        assert refused(f"{token}{end}") == "malformed"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_token_that_is_nested_deeply(opening):
    deep = encoded(opening * (LONGEST * 7 // 10 // len(opening)))
    assert len(deep) < LONGEST - 10
    assert refused(f"{deep}.e30.") == refused(f"e30.{deep}.") == "malformed"


def test_huge_token(token):
    _, claims = decoded(token)
    header, _ = decoded(token)
    assert refused(signed(header, {**claims, "more": "x" * LONGEST})) == "malformed"
    assert refused(token + "x" * 10_000_000) == "malformed"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "9" * 5000, "1e999"])
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_number_that_is_none(token, name, number):
    header, claims = decoded(token)
    text = json.dumps({**claims, name: "?"}).replace('"?"', number)
    assert refused(signed(header, text)) == "malformed"


# §2.8 and §3.8 to §3.12: whose, for whom, of which kind.


def test_token_of_another_site_whose_keys_have_the_same_ids(token):
    """It is for us, and its issuer calls itself by our name."""
    assert refused(signed(*decoded(token), own_key())) == "wrong_signature"


@pytest.mark.parametrize(
    "issuer", ["https://evil.example", f"{ISSUER}/", ISSUER.upper(), "", [ISSUER], None, 7]
)
def test_token_of_another_issuer(token, issuer):
    header, claims = decoded(token)
    expected = "wrong_issuer" if isinstance(issuer, str) else "malformed"
    assert refused(signed(header, {**claims, "iss": issuer})) == expected


@pytest.mark.standard("ASVS-9.2.3")
@pytest.mark.parametrize(
    "audience", ["payments", AUDIENCE.upper(), "order", "", [AUDIENCE], [AUDIENCE, "payments"], 7]
)
def test_token_for_somebody_else(token, audience):
    header, claims = decoded(token)
    refusals = ("wrong_audience", "malformed")
    assert refused(signed(header, {**claims, "aud": audience})) in refusals


@pytest.mark.standard("ASVS-9.2.2")
@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+JWT", "logout+jwt", "dpop+jwt", "", None, 7])
def test_token_of_another_kind(token, kind):
    header, claims = decoded(token)
    assert refused(signed({**header, "typ": kind}, claims)) == "wrong_type"


@pytest.mark.standard("ASVS-9.2.4")
@pytest.mark.parametrize("name", ["iss", "aud", "sub", "sid", "iat", "exp", "jti"])
def test_token_that_lacks_something(token, name):
    header, claims = decoded(token)
    for wrong in (None, [], {}, True, 1.5):
        assert refused(signed(header, {**claims, name: wrong})) == "malformed"
    del claims[name]
    assert refused(signed(header, claims)) == "malformed"


@pytest.mark.parametrize("name", ["alg", "kid", "typ"])
def test_header_that_lacks_something(token, name):
    header, claims = decoded(token)
    del header[name]
    assert refused(signed(header, claims)) == "malformed"


# When.


@pytest.mark.standard("ASVS-9.2.1")
def test_token_that_has_expired(token):
    with later(seconds=311):
        assert refused(token) == "expired"


def test_token_that_never_expires_and_is_from_elsewhere(token):
    header, claims = decoded(token)
    for_ever = {**claims, "exp": 2**40}
    assert refused(signed(header, for_ever, own_key())) == "wrong_signature"
    assert refused(signed(header, for_ever)) == "malformed"  # also with a stolen key
    assert refused(signed(header, {**claims, "exp": -(2**40)})) == "expired"


@pytest.mark.standard("ASVS-9.2.1")
@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_token_of_the_future(token, name):
    header, claims = decoded(token)
    soon = int(time.time()) + 60
    assert refused(signed(header, {**claims, name: soon})) == "not_yet_valid"
    assert refused(signed(header, {**claims, name: "soon"})) == "malformed"


# §2.9, §2.10, §3.10: what a token says is not to be trusted before it is verified.

KEY_IDS = [
    *["../../../../dev/null", "/dev/null", "file:///dev/null", "https://evil.example/key"],
    *["' OR '1'='1", "' UNION SELECT 'secret' --", "1; DROP TABLE django_sessionkit_signingkey"],
    *["", "\0", "k" * 4000, "KID", None, 0, 1, True, 1.5, [], ["KID"], {"kid": "KID"}],
]


@pytest.mark.standard("ASVS-9.1.3")
@pytest.mark.parametrize("kid", KEY_IDS, ids=repr)
def test_id_of_a_key_that_is_more_than_an_id(token, kid):
    header, claims = decoded(token)
    with CaptureQueriesContext(connection) as asked:
        assert refused(signed({**header, "kid": kid}, claims)) == "unknown_key"
    assert not asked
    # The classic: the secret is what the path leads to, an empty file.
    empty = hmac.digest(b"", f"{encoded({**header, 'kid': kid})}.e30".encode(), "sha256")
    forged = f"{encoded({**header, 'kid': kid, 'alg': 'HS256'})}.e30.{encoded(empty)}"
    assert refused(forged) == "unknown_key"
    assert SigningKey.objects.count() == 1


@pytest.mark.standard("ASVS-9.1.3")
@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c", "x5t", "crit", "b64", "zip", "url"])
def test_header_that_leads_to_a_key_or_asks_for_something(token, name, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("somebody was asked"))
    header, claims = decoded(token)
    theirs = own_key()
    public = public_jwk(theirs, header["kid"], "ES256")
    value = {
        "jwk": public,
        "x5c": ["MIIB"],
        "crit": ["exp"],
        "b64": False,
        "zip": "DEF",
    }.get(name, "https://evil.example/keys.json")
    assert refused(signed({**header, name: value}, claims, theirs)) == "malformed"
    assert refused(signed({**header, name: value}, claims)) == "malformed"


@pytest.mark.parametrize("key", [None, "theirs"])
def test_name_that_is_there_twice(token, key):
    header, claims = decoded(token)
    signer = own_key() if key else None
    twice = json.dumps(claims)[:-1] + ', "sub": "1"}'
    assert refused(signed(header, twice, signer)) == "malformed"
    twice = json.dumps(header)[:-1] + ', "alg": "ES256"}'
    assert refused(signed(twice, claims, signer)) == "malformed"


@pytest.mark.parametrize("sid", ["", "1", "' OR 1=1", "../", "0" * 32, "é"])
def test_session_that_is_none(token, sid):
    header, claims = decoded(token)
    forged = signed(header, {**claims, "sid": sid})
    with pytest.raises(InvalidToken, match=r"session_ended|malformed"):
        verify(forged, check_session=True)


@pytest.mark.parametrize("sub", ["", "0", "' OR 1=1", "99999999999999999999999999", "é", "1.0"])
def test_user_who_is_none(token, sub):
    header, claims = decoded(token)
    forged = signed(header, {**claims, "sub": sub})
    with pytest.raises(InvalidToken, match="user_disabled"):
        authenticate(forged)
    assert refused(forged, check_session=True) == "session_ended"


def test_reason_is_for_logs_and_names_nothing_of_the_token(token):
    with pytest.raises(InvalidToken) as found:
        verify(signed(*decoded(token), own_key()))
    assert str(found.value) == "This token is not valid: wrong_signature."
    assert found.value.__suppress_context__

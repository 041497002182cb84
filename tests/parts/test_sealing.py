import copy
import os
import pickle
import random
import zlib
from hashlib import sha256

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from django.conf import settings
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_sessionkit.backends import sealing
from django_sessionkit.backends.sealing import (
    COMPRESS_FROM,
    NONCE,
    SessionKey,
    digest_of,
    new_salt,
    new_session_key,
    seal,
    successor_of,
    unseal,
    version_of,
)

KEY = str(new_session_key())
FACTS, CART = b'{"handle":"one"}', b'{"cart":["teapot"]}'


def sealed(facts=FACTS, body=CART, key=KEY, plain=False):
    return seal(facts, body, SessionKey(key), plain)


def opened(payload, key=KEY):
    return unseal(payload, SessionKey(key))


def test_what_is_sealed_opens_again():
    assert opened(sealed()) == (FACTS, CART, False)
    assert opened(sealed(plain=True)) == (FACTS, CART, True)


@given(facts=st.binary(max_size=300), body=st.binary(max_size=300), plain=st.booleans())
def test_whatever_is_sealed_opens_again(facts, body, plain):
    assert opened(sealed(facts, body, plain=plain)) == (facts, body, plain)


@pytest.mark.parametrize("length", [0, COMPRESS_FROM - 1, COMPRESS_FROM, 4096, 16 * 1024, 200_000])
def test_contents_of_any_length_open_again(length):
    """With all windows of the compression, and with what cannot be compressed."""
    for body in (b"teapot " * length, os.urandom(length)):
        assert opened(sealed(FACTS, body[:length])) == (FACTS, body[:length], False)


def test_more_facts_than_there_is_room_for_are_an_error():
    with pytest.raises(OverflowError):
        sealed(facts=b" " * 2**22)


def test_nothing_can_be_read_in_it():
    payload = sealed()
    assert b"teapot" not in payload
    assert KEY.encode() not in payload


def test_large_contents_are_compressed():
    assert len(sealed(body=b"teapot " * 1000)) < 200


def test_what_django_keeps_of_a_sign_in_takes_little_room():
    """The names that all sessions have in common are not in the payload."""
    body = (
        b'{"_auth_user_id":"1","_auth_user_backend":"django.contrib.auth.backends.ModelBackend",'
        b'"_auth_user_hash":"' + os.urandom(32).hex().encode() + b'"}'
    )
    assert len(sealed(body=body)) < 128


def test_what_does_not_shrink_is_left_as_it_is():
    body = os.urandom(1000)
    assert len(sealed(b"", body)) == NONCE + 3 + 1000 + 16


def test_two_sealings_of_the_same_have_two_versions():
    first, second = sealed(), sealed()
    assert version_of(first) != version_of(second)
    assert first != second


def test_another_session_cannot_open_it():
    assert opened(sealed(), key=new_session_key()) is None


def test_it_does_not_open_in_another_row():
    """Not even with the right cipher: the digest is authenticated with the contents."""
    payload, key, other = sealed(), SessionKey(KEY), new_session_key()
    cipher = key.prepare()
    assert cipher.decrypt(payload[:NONCE], payload[NONCE:], key.associated)
    other.prepare()
    with pytest.raises(InvalidTag):
        cipher.decrypt(payload[:NONCE], payload[NONCE:], other.associated)


@pytest.mark.parametrize("length", [0, 1, 12, 13, 27, 28, 40])
def test_a_truncated_one_does_not_open(length):
    assert opened(sealed()[:length]) is None


def test_a_flipped_bit_anywhere_is_noticed():
    payload = sealed()
    for place in range(len(payload)):
        forged = bytearray(payload)
        forged[place] ^= 1
        assert opened(bytes(forged)) is None


@pytest.mark.parametrize(
    "foreign",
    [b"\x80\x04\x95\x0b\x00", b"x" * 100_000, zlib.compress(b"{}"), b'{"_auth_user_id": "1"}'],
)
@pytest.mark.standard("ASVS-1.5.2")
def test_what_somebody_else_wrote_does_not_open(foreign):
    assert opened(foreign) is None


def test_a_stolen_secret_key_opens_nothing_without_the_cookie():
    assert opened(sealed(), key=digest_of(KEY)) is None


def test_a_stolen_cookie_opens_nothing_without_the_secret_key():
    payload = sealed()
    with override_settings(SECRET_KEY="guessed"):
        assert opened(payload) is None


def test_the_secret_key_can_be_rotated():
    payload = sealed()
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["older", settings.SECRET_KEY]):
        assert opened(payload) == (FACTS, CART, False)
        assert opened(sealed()) == (FACTS, CART, False)
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["older"]):
        assert opened(payload) is None


def test_what_was_opened_with_a_fallback_is_sealed_with_the_secret_key():
    payload, key = sealed(), SessionKey(KEY)
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        assert unseal(payload, key)
        again = seal(FACTS, CART, key)
    with override_settings(SECRET_KEY="new"):
        assert opened(again) == (FACTS, CART, False)


def test_a_key_that_was_prepared_notices_another_secret_key():
    key = SessionKey(KEY)
    assert key.prepare() is key.prepare()
    with override_settings(SECRET_KEY="new"):
        key.prepare()
        payload = seal(FACTS, CART, key)
        assert opened(payload) == (FACTS, CART, False)
    assert opened(payload) is None
    key.prepare()
    assert unseal(payload, key) is None


def test_a_secret_key_may_be_bytes():
    with override_settings(SECRET_KEY=settings.SECRET_KEY.encode()):
        payload = sealed()
    assert opened(payload) == (FACTS, CART, False)


def test_the_key_is_derived_as_nist_says():
    """SP 800-56C r2 §4.1, by another implementation."""
    root = sha256(b"django_sessionkit.1" + settings.SECRET_KEY.encode()).digest()
    derive = ConcatKDFHash(SHA256(), length=32, otherinfo=b"django_sessionkit.1").derive
    cipher, nonce = AESGCM(derive(root + KEY.encode())), b"\0" * NONCE
    contents = (len(FACTS) << 2).to_bytes(3) + FACTS + CART
    associated = b"django_sessionkit.1" + digest_of(KEY).encode()
    assert opened(nonce + cipher.encrypt(nonce, contents, associated)) == (FACTS, CART, False)


@pytest.mark.standard("ASVS-7.2.2", "ASVS-7.2.3", "ASVS-11.5.1", "NIST-SB-8.1", "WSTG-SESS-01")
def test_session_keys_are_random_and_fit_a_cookie():
    keys = {new_session_key() for _ in range(10_000)}
    assert len(keys) == 10_000
    assert all(
        len(key) == 32 and set(key) <= set("abcdefghijklmnopqrstuvwxyz234567") for key in keys
    )
    # Every character at every place: 10,000 / 32 of each, give or take six standard deviations.
    for place in range(32):
        counts = {}
        for key in keys:
            counts[key[place]] = counts.get(key[place], 0) + 1
        assert len(counts) == 32
        assert all(abs(n - 312.5) < 6 * 17.4 for n in counts.values())


@pytest.mark.standard("ASVS-7.2.3", "ASVS-11.5.1", "NIST-SB-8.1")
def test_session_keys_do_not_follow_from_a_seed():
    keys = set()
    for _ in range(2):
        random.seed(1)
        keys.add(new_session_key())
    assert len(keys) == 2


def test_a_successor_follows_from_a_key_and_a_salt_only():
    salt = new_salt()
    successor = successor_of(KEY, salt)
    assert successor == successor_of(KEY, salt)
    assert len(successor) == len(KEY)
    assert len({KEY, successor, successor_of(KEY, new_salt()), successor_of(successor, salt)}) == 4


def test_the_digest_is_sha_256():
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of("abc") == digest
    assert SessionKey("abc").digest == digest
    prepared = SessionKey("abc")
    prepared.prepare()
    assert prepared.digest == digest


def test_a_key_that_is_no_text_has_a_digest_all_the_same():
    odd = SessionKey("\udc80" * 8)
    assert len(odd.digest) == 64
    assert opened(seal(FACTS, CART, odd), key=odd) == (FACTS, CART, False)


def test_a_session_key_does_not_show_in_an_error_report():
    assert KEY not in repr(SessionKey(KEY))


def test_a_session_key_can_be_copied():
    key = SessionKey(KEY)
    payload = seal(FACTS, CART, key)
    for other in (copy.deepcopy(key), pickle.loads(pickle.dumps(key))):  # noqa: S301
        assert type(other) is SessionKey
        assert other == KEY
        assert unseal(payload, other) == (FACTS, CART, False)


def test_a_later_format_refuses_this_one(monkeypatch):
    payload = sealed()
    monkeypatch.setattr(sealing, "FORMAT", b"django_sessionkit.2")
    assert opened(payload) is None

import json
import random
import zlib

import pytest
from django.core.serializers.json import DjangoJSONEncoder
from django.test import override_settings

from django_sessionkit import sealing
from django_sessionkit.sealing import digest_of, new_session_key, seal, unseal, version_of


class Json:
    def dumps(self, obj):
        return json.dumps(obj, cls=DjangoJSONEncoder).encode()

    def loads(self, data):
        return json.loads(data)


KEY = new_session_key()
DIGEST = digest_of(KEY)
CART = {"handle": "one"}, {"cart": ["teapot"]}


def sealed(contents=CART, key=KEY):
    return seal(contents, key, digest_of(key), Json())


def opened(payload, key=KEY, digest=None):
    return unseal(payload, key, digest or digest_of(key), Json())


def test_what_is_sealed_opens_again():
    assert opened(sealed()) == CART


def test_nothing_can_be_read_in_it():
    payload = sealed()
    assert b"teapot" not in payload
    assert KEY.encode() not in payload


def test_large_contents_are_compressed():
    contents = {}, {"words": "teapot " * 1000}
    payload = sealed(contents)
    assert len(payload) < 200
    assert opened(payload)[1] == contents[1]


def test_two_sealings_of_the_same_have_two_versions():
    first, second = sealed(), sealed()
    assert version_of(first) != version_of(second)
    assert first != second


def test_another_session_cannot_open_it():
    other = new_session_key()
    assert opened(sealed(), key=other, digest=DIGEST) is None


def test_it_does_not_open_in_another_row():
    assert opened(sealed(), digest=digest_of(new_session_key())) is None


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
    payload = sealed()
    assert opened(payload, key=DIGEST, digest=DIGEST) is None


def test_the_secret_key_can_be_rotated():
    payload = sealed()
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["older", "of the tests"]):
        assert opened(payload)[1] == CART[1]
        assert opened(sealed())[1] == CART[1]
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["older"]):
        assert opened(payload) is None


def test_a_secret_key_may_be_bytes():
    with override_settings(SECRET_KEY=b"of the tests"):
        payload = sealed()
    assert opened(payload)[1] == CART[1]


def test_a_serializer_that_was_changed_gives_nothing_rather_than_an_error():
    class Other(Json):
        def loads(self, data):
            raise UnicodeDecodeError("utf-8", b"", 0, 1, "not ours")

    assert unseal(sealed(), KEY, DIGEST, Other()) is None


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


def test_the_digest_is_sha_256():
    assert digest_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_key_that_is_no_text_has_a_digest_all_the_same():
    assert len(digest_of("\udc80" * 8)) == 64


def test_a_later_format_refuses_this_one(monkeypatch):
    payload = sealed()
    monkeypatch.setattr(sealing, "FORMAT", b"django_sessionkit.2")
    assert opened(payload) is None

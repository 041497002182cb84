"""
Bytes <-> sealed bytes, and the names a session key goes by. No I/O, and nothing is serialised here.

A store holds AES-256-GCM over two strings of bytes: the facts of the kit, and the dictionary of the
session. The cipher needs the session key *and* SECRET_KEY. A dump of the store reveals nothing, and
neither does a stolen SECRET_KEY alone. The cipher authenticates the digest of the session key, too:
a payload that is copied under another session's digest does not open.

    nonce (12 bytes) | ciphertext of: header (3 bytes), facts, dictionary | tag (16 bytes)

The header is a number: the length of the facts, and two bits. The low bit says that facts and
dictionary are compressed, as one string. The other bit is ``plain``: see serializing.py.

The key of the cipher is that of the one-step key derivation of NIST SP 800-56C r2 §4.1, with
SHA-256, which is H(counter | Z | FixedInfo):

    SHA-256(1 (4 bytes) | SHA-256(label | SECRET_KEY) | session key | label)

- The session key has 160 random bits. Without the cookie nobody can guess the input, however weak
  SECRET_KEY is. A plain hash is one of the functions that the standard allows. HMAC, another one,
  has room for a salt, which this derivation does not need, and takes three times as long.
- Z is made of two secrets, as §2 allows. All parts but the session key have a fixed length, so two
  pairs of keys never make the same input.
- The label separates this key from whatever else is made of the two keys, such as the digest.
- The output is as long as the hash, and nobody sees it. That whoever knows a SHA-256 can extend it
  makes no difference here.
"""

import hmac
import os
import zlib
from contextlib import suppress
from functools import cached_property, lru_cache
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

# Of session keys. Eight times, so that every byte has its letter.
LETTERS = b"abcdefghijklmnopqrstuvwxyz234567" * 8
NONCE = 12  # bytes
# The label. A later format gets another one, and refuses the payloads of this one.
FORMAT = b"django_sessionkit.1"
COUNTER = b"\0\0\0\1"
HEADER = 3  # bytes
COMPRESSED, PLAIN = 1, 2
# Bytes of facts and dictionary. Smaller contents are those of visitors, and hardly shrink. What
# Django keeps of a sign-in takes 290 bytes with the facts, and 115 when it is compressed.
COMPRESS_FROM = 128
# What the facts and dictionaries of sessions have in common, the most frequent last: with it, half
# a kilobyte shrinks to 215 bytes rather than 290. A change of the dictionary takes a new label.
DICTIONARY = (
    b'"renew_grace":"on_reuse":"report","bind":["browser","system","network"],"on_change":"ask"'
    b'{"browser":"","system":"","network":""},null,null,null,null,'
    b'{"idle":3600,"absolute":43200,"lock":true,"renew_after":900,"recent":900}'
    b'"_messages":"","_language":"","_session_expiry":{"_csrftoken":"'
    b'","1",1790000000000,1790000000000,{"absolute":2592000},1790000000000]'
    b'{"_auth_user_id":"1","_auth_user_backend":"django.contrib.auth.backends.ModelBackend",'
    b'"_auth_user_hash":"'
)

# Facts, dictionary, and whether the dictionary is plain. A NamedTuple would take 2 µs after a wait.
Opened = tuple[bytes, bytes, bool]


def digest_of(session_key: str) -> str:
    """
    Return what stores and tables hold in place of the session key: its SHA-256, 64 hex digits.

    No salt and no stretching: there is nothing to guess in 160 random bits.
    """
    return sha256(session_key.encode("utf-8", "surrogatepass")).hexdigest()


class SessionKey(str):
    """
    A session key that knows its digest and its cipher. The key does not show in the frames of an
    error report, which repr() locals.
    """

    digest = cached_property(digest_of)
    cipher: AESGCM | None = None
    associated = b""  # what the cipher authenticates beside the contents

    _secret: str | bytes | None = None  # what the cipher was made with

    def prepare(self, secret: str | bytes | None = None) -> AESGCM:
        """
        Return the cipher of this key and a secret, SECRET_KEY if none is given. Keep the cipher and
        the digest: what is made before the wait for the store need not be made after it.
        """
        secret = settings.SECRET_KEY if secret is None else secret
        if self.cipher is None or secret is not self._secret:
            # In one piece: after a wait, or in a new request, each call of a function shows.
            key = self.encode("utf-8", "surrogatepass")
            self.digest = sha256(key).hexdigest()
            self.associated = FORMAT + self.digest.encode("ascii")
            self.cipher = AESGCM(sha256(COUNTER + _root(secret) + key + FORMAT).digest())
            self._secret = secret
        return self.cipher

    def __repr__(self) -> str:
        return "SessionKey('…')"

    def __reduce__(self) -> tuple[type["SessionKey"], tuple[str]]:
        # A copy makes its own cipher: AESGCM cannot be copied or pickled.
        return SessionKey, (str(self),)


def new_session_key() -> SessionKey:
    """
    Return a new session key: 160 random bits as 32 characters of [a-z2-7].

    ASVS 7.2.3 and NIST SP 800-63B-4 §5.1 ask for 128 and 64. Lower case, because Django keeps
    session keys fit for stores that do not tell cases apart.
    """
    return _as_key(os.urandom(32))


def new_salt() -> str:
    """Return 160 random bits as text, for ``successor_of()``."""
    return os.urandom(20).hex()


def successor_of(session_key: str, salt: str) -> SessionKey:
    """
    Return the key that comes after this one: as random as ``salt``, and nobody can tell it without
    both. So what leads from a key to its successor need not hold the latter.
    """
    return _as_key(hmac.digest(session_key.encode(), salt.encode("ascii"), "sha256"))


def _as_key(random: bytes) -> SessionKey:
    # Five bits of each byte.
    return SessionKey(random.translate(LETTERS).decode("ascii"))


def version_of(payload: bytes) -> bytes:
    """Return the 12 bytes that tell one sealing from every other: the nonce."""
    return payload[:NONCE]


def seal(facts: bytes, body: bytes, key: SessionKey, plain: bool = False) -> bytes:
    """
    Return both as bytes that only the holder of the session key can open. ``plain`` comes back with
    them: nobody else can read or change that either.

    Raises OverflowError for 4 MiB of facts.
    """
    header, contents = len(facts) << 2 | plain << 1, facts + body
    if len(contents) >= COMPRESS_FROM:
        packed = _compress(contents)
        if len(packed) < len(contents):
            header, contents = header | COMPRESSED, packed
    cipher, nonce = key.cipher or key.prepare(), os.urandom(NONCE)
    return nonce + cipher.encrypt(nonce, header.to_bytes(HEADER) + contents, key.associated)


def unseal(payload: bytes, key: SessionKey) -> Opened | None:
    """
    Return what was sealed, or None for a payload that does not open: truncated, tampered with,
    another session's, or sealed with a SECRET_KEY that SECRET_KEY_FALLBACKS no longer names.

    A key that is prepared is taken as it is: ``prepare()`` is what notices another SECRET_KEY.
    """
    cipher = key.cipher or key.prepare()
    data: bytes | None
    try:
        data = cipher.decrypt(payload[:NONCE], payload[NONCE:], key.associated)
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        data = _decrypt_with_another(payload, key)
    if data is None:
        return None
    # The data is authentic from here on, and so is the length that it expands to.
    header, contents = int.from_bytes(data[:HEADER]), data[HEADER:]
    if header & COMPRESSED:
        contents = zlib.decompressobj(-zlib.MAX_WBITS, DICTIONARY).decompress(contents)
    end = header >> 2
    return contents[:end], contents[end:], bool(header & PLAIN)


def _decrypt_with_another(payload: bytes, key: SessionKey) -> bytes | None:
    try:
        for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
            cipher = key.prepare(secret)
            with suppress(InvalidTag, ValueError):
                return cipher.decrypt(payload[:NONCE], payload[NONCE:], key.associated)
        return None
    finally:
        key.cipher = None  # SECRET_KEY seals what is written next


@lru_cache(maxsize=8)
def _root(secret: str | bytes) -> bytes:
    return sha256(FORMAT + (secret.encode() if isinstance(secret, str) else secret)).digest()


def _compress(contents: bytes) -> bytes:
    # zlib.compress() clears 256 KB first, whatever the length. A window of 4 KB and a small hash
    # table make as few bytes of a small session, in a fraction of the time.
    window, memory = (12, 4) if len(contents) < 16 * 1024 else (15, 8)
    packer = zlib.compressobj(
        1, zlib.DEFLATED, -window, memory, zlib.Z_DEFAULT_STRATEGY, DICTIONARY
    )
    return packer.compress(contents) + packer.flush()

"""
Session keys, and the encryption of what stores hold. No I/O, and nothing is serialised here.

A store holds AES-256-GCM over two strings of bytes: the facts of the kit, and the dictionary of the
session. The cipher needs the session key *and* SECRET_KEY. A dump of the store reveals nothing, and
neither does a stolen SECRET_KEY alone. The cipher authenticates the digest of the session key, too:
a payload that somebody copies under the digest of another session does not open.

    nonce (12 bytes) | ciphertext of: header (3 bytes), facts, dictionary | tag (16 bytes)

The header is a number: the length of the facts in bytes, and two bits below it. The lowest bit says
that facts and dictionary are compressed, as one string. The other bit is ``plain``: see
serializing.py.

The one-step key derivation of NIST SP 800-56C r2 §4.1 makes the key of the cipher. With SHA-256,
its H(counter | Z | FixedInfo) is:

    SHA-256(1 (4 bytes) | SHA-256(label | SECRET_KEY) | session key | label)

- The session key has 160 random bits. Without the cookie nobody can guess the input, however weak
  SECRET_KEY is. A plain hash is one of the functions that the standard allows. HMAC, another one,
  has room for a salt, which this derivation does not need, and takes three times as long.
- Z is made of two secrets, as §2 allows. All parts but the session key have a fixed length, so two
  pairs of keys never make the same input.
- The label separates this key from all else that is made of the two keys, such as the digest.
- Whoever knows a SHA-256 can extend it. That does not matter here: nobody sees the output, which is
  as long as the hash.
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

# The letters of session keys, eight times: so each of the 256 values of a byte has a letter.
LETTERS = b"abcdefghijklmnopqrstuvwxyz234567" * 8
NONCE = 12  # bytes
# The label. A later format gets another label, and refuses payloads with this label.
FORMAT = b"django_sessionkit.1"
COUNTER = b"\0\0\0\1"
HEADER = 3  # bytes
COMPRESSED, PLAIN = 1, 2
# Facts and dictionary are compressed from this number of bytes on. Less than that is a visitor's,
# and hardly shrinks. The facts and what Django keeps of a sign-in shrink from 290 bytes to 115.
COMPRESS_FROM = 128
# The dictionary of zlib: what facts and dictionaries of sessions have in common, the most frequent
# last. With it, half a kilobyte shrinks to 215 bytes rather than 290. A change takes a new label.
DICTIONARY = (
    b'"renew_grace":"on_reuse":"report","bind":["browser","system","network"],"on_change":"ask"'
    b'{"browser":"","system":"","network":""},null,null,null,null,'
    b'{"idle":3600,"absolute":43200,"lock":true,"renew_after":900,"recent":900}'
    b'"_messages":"","_language":"","_session_expiry":{"_csrftoken":"'
    b'","1",1790000000000,1790000000000,{"absolute":2592000},1790000000000]'
    b'{"_auth_user_id":"1","_auth_user_backend":"django.contrib.auth.backends.ModelBackend",'
    b'"_auth_user_hash":"'
)

# Facts, dictionary, and whether the dictionary is plain. Not a NamedTuple: after a wait for the
# store, making one takes 2 µs.
Opened = tuple[bytes, bytes, bool]


def digest_of(session_key: str) -> str:
    """
    Return the SHA-256 of a session key, as 64 hex digits. Stores and tables hold this digest in
    place of the key.

    The digest needs no salt and no stretching: nobody can guess 160 random bits.
    """
    return sha256(session_key.encode("utf-8", "surrogatepass")).hexdigest()


class SessionKey(str):
    """
    A session key that knows its digest and its cipher. Error reports show local variables by
    repr(), which hides this key.
    """

    digest = cached_property(digest_of)
    cipher: AESGCM | None = None
    associated = b""  # what the cipher authenticates beside the contents

    _secret: str | bytes | None = None  # what the cipher was made with

    def prepare(self, secret: str | bytes | None = None) -> AESGCM:
        """
        Return the cipher of this key and a secret, which is SECRET_KEY by default. Keep the cipher
        and the digest, so that an engine can make both before it waits for the store.
        """
        secret = settings.SECRET_KEY if secret is None else secret
        if self.cipher is None or secret is not self._secret:
            # No helper functions: after a wait, or in a new request, each call takes noticeable
            # time. And no variable with the bytes of the key: error reports would show them.
            self.digest = sha256(self.encode("utf-8", "surrogatepass")).hexdigest()
            self.associated = FORMAT + self.digest.encode("ascii")
            self.cipher = AESGCM(
                sha256(
                    COUNTER + _root(secret) + self.encode("utf-8", "surrogatepass") + FORMAT
                ).digest()
            )
            self._secret = secret
        return self.cipher

    def __repr__(self) -> str:
        return "SessionKey('…')"

    def __reduce__(self) -> tuple[type["SessionKey"], tuple[str]]:
        # A copy makes its own cipher: AESGCM cannot be copied or pickled.
        return type(self), (str(self),)


class HandOverCode(SessionKey):
    """
    A code that opens a session, once: see handing_over.py. It looks like a session key. As bytes it
    begins with one that no text begins with, so no session key has its digest, or its cipher: a
    code in a cookie leads nowhere, and neither does a session key in the place of a code.
    """

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff" + super().encode(encoding, errors)


def as_key(session_key: str | None) -> SessionKey | None:
    """Return a key that somebody has given to the engine as one that error reports do not show."""
    if isinstance(session_key, SessionKey):
        return session_key
    return SessionKey(session_key) if session_key else None


def new_session_key() -> SessionKey:
    """
    Return a new session key: 160 random bits as 32 characters of [a-z2-7].

    ASVS 7.2.3 asks for 128 bits, NIST SP 800-63B-4 §5.1 for 64. The letters are lower case, because
    Django makes session keys fit for stores that ignore case.
    """
    return _as_key(os.urandom(32))


def new_code() -> HandOverCode:
    """Return a new code, as random as a session key."""
    return HandOverCode(new_session_key())


def new_salt() -> str:
    """Return 160 random bits as 40 hex digits, for ``successor_of()``."""
    return os.urandom(20).hex()


def successor_of(session_key: str, salt: str) -> SessionKey:
    """
    Return the session key that comes after this key. It is as random as ``salt``, and nobody can
    compute it without both. So a store that leads from a key to its successor holds only the salt.
    """
    return _as_key(hmac.digest(session_key.encode(), salt.encode("ascii"), "sha256"))


def _as_key(random: bytes) -> SessionKey:
    # Each letter takes five bits of its byte.
    return SessionKey(random.translate(LETTERS).decode("ascii"))


def version_of(payload: bytes) -> bytes:
    """Return the nonce: 12 bytes, different for every call of ``seal()``."""
    return payload[:NONCE]


def seal(facts: bytes, body: bytes, key: SessionKey, plain: bool = False) -> bytes:
    """
    Return facts and dictionary (``body``) as bytes that only the holder of the session key can read
    or change. The same holds for ``plain``, which ``unseal()`` returns with them.

    Raises OverflowError if the facts have 4 MiB or more.
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
    Return facts, dictionary and ``plain``, as they were given to ``seal()``. Return None if the
    payload does not open: because it is truncated, was tampered with, belongs to another session,
    or was sealed with a SECRET_KEY that SECRET_KEY_FALLBACKS no longer names.

    If the key has a cipher, that is used. Only ``prepare()`` notices that SECRET_KEY has changed.
    """
    cipher = key.cipher or key.prepare()
    data: bytes | None
    try:
        data = cipher.decrypt(payload[:NONCE], payload[NONCE:], key.associated)
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        data = _decrypt_with_another(payload, key)
    if data is None:
        return None
    # From here on the data is authentic, so it cannot expand to more than what was sealed.
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
    # zlib.compress() first clears 256 KB of memory, whatever the length. A window of 4 KB and a
    # small hash table compress a small session as well, in a fraction of the time.
    window, memory = (12, 4) if len(contents) < 16 * 1024 else (15, 8)
    packer = zlib.compressobj(
        1, zlib.DEFLATED, -window, memory, zlib.Z_DEFAULT_STRATEGY, DICTIONARY
    )
    return packer.compress(contents) + packer.flush()

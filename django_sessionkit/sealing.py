"""
Dictionary <-> sealed bytes, and the names a session key goes by. Pure: no I/O, no state.

What a store holds is AES-256-GCM over the serialised pair (facts of the kit, dictionary of the
session). The key comes from the session key *and* from SECRET_KEY, and the digest is authenticated
with it: a dump of the store reveals nothing, neither does a stolen SECRET_KEY alone, and a payload
that is copied under another session's digest does not open.

    nonce (12 bytes) | ciphertext of: 1 byte "compressed?" + serialised pair | tag (16 bytes)
"""

import base64
import hashlib
import hmac
import os
import zlib
from functools import lru_cache
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

NONCE = 12
# Binds a payload to this format: a later format gets another word here, and refuses the old one.
FORMAT = b"django_sessionkit.1"
# Bytes. A signed-in session of 0.5 KB takes 545 bytes of Redis' memory with zlib, 790 without, and
# 594 as Django's cache engine keeps it; below this size there is little to gain.
COMPRESS_FROM = 256

Contents = tuple[dict[str, Any], dict[str, Any]]


class Serializer(Protocol):
    """What ``SESSION_SERIALIZER`` names."""

    def dumps(self, obj: Any) -> bytes: ...

    def loads(self, data: bytes) -> Any: ...


class SessionKey(str):
    """A session key that does not show in the frames of an error report, which repr() locals."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "SessionKey('…')"


def new_session_key() -> SessionKey:
    """
    Return a new session key: 160 random bits as 32 characters of [a-z2-7].

    ASVS 7.2.3 and NIST SP 800-63B-4 §5.1 ask for 128 and 64. Lower case, because Django keeps
    session keys fit for stores that do not tell cases apart.
    """
    return _as_key(os.urandom(20))


def new_salt() -> str:
    """Return 160 random bits as text, for ``successor_of()``."""
    return os.urandom(20).hex()


def successor_of(session_key: str, salt: str) -> SessionKey:
    """
    Return the key that comes after this one: as random as ``salt``, and nobody can tell it without
    both. So what leads from a key to its successor need not hold the latter.
    """
    return _as_key(hmac.digest(session_key.encode(), salt.encode("ascii"), "sha256")[:20])


def _as_key(random: bytes) -> SessionKey:
    return SessionKey(base64.b32encode(random).decode("ascii").lower())


def digest_of(session_key: str) -> str:
    """
    Return what stores and tables hold in place of the session key: its SHA-256, 64 hex digits.

    No salt and no stretching: there is nothing to guess in 160 random bits.
    """
    return hashlib.sha256(session_key.encode("utf-8", "surrogatepass")).hexdigest()


def version_of(payload: bytes) -> bytes:
    """Return the 12 bytes that tell one sealing from every other: the nonce."""
    return payload[:NONCE]


def seal(contents: Contents, session_key: str, digest: str, serializer: Serializer) -> bytes:
    """
    Return ``contents`` as bytes that only the holder of the session key can open.

    Raises what the serializer raises, TypeError for JSON, for a value that it cannot express.
    """
    data = serializer.dumps(contents)
    data = b"\1" + zlib.compress(data, 1) if len(data) >= COMPRESS_FROM else b"\0" + data
    nonce = os.urandom(NONCE)
    key = _derive(session_key, settings.SECRET_KEY)
    return nonce + AESGCM(key).encrypt(nonce, data, FORMAT + digest.encode("ascii"))


def unseal(
    payload: bytes, session_key: str, digest: str, serializer: Serializer
) -> Contents | None:
    """
    Return the contents of a payload, or None when it does not open: truncated, tampered with,
    another session's, or sealed with a SECRET_KEY that SECRET_KEY_FALLBACKS no longer names.
    """
    nonce, sealed = payload[:NONCE], payload[NONCE:]
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        try:
            data = AESGCM(_derive(session_key, secret)).decrypt(
                nonce, sealed, FORMAT + digest.encode("ascii")
            )
            break
        except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce and a tag
            continue
    else:
        return None
    # It is authentic from here on: only a change of SESSION_SERIALIZER can still get in the way.
    body = zlib.decompress(data[1:]) if data[0] else data[1:]
    try:
        facts, dictionary = serializer.loads(body)
    except Exception:
        return None
    return facts, dictionary


def _derive(session_key: str, secret: str | bytes) -> bytes:
    return hmac.digest(_root(secret), session_key.encode("utf-8", "surrogatepass"), "sha256")


@lru_cache(maxsize=8)
def _root(secret: str | bytes) -> bytes:
    return hashlib.sha256(
        FORMAT + (secret.encode() if isinstance(secret, str) else secret)
    ).digest()

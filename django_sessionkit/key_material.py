"""
The keys that sign tokens, as bytes: made, sealed for the table, and published. No I/O.

A private key rests as AES-256-GCM, under a key that is made of SECRET_KEY. A dump of the table
signs nothing:

    nonce (12 bytes) | ciphertext | tag (16 bytes)

The cipher authenticates the id of the key and its algorithm, too: a private key that somebody
copies into another row does not open. The one-step key derivation of NIST SP 800-56C r2 §4.1 makes
the key of the cipher, as in backends/sealing.py: H(counter | Z | FixedInfo), with SHA-256, is

    SHA-256(1 (4 bytes) | SHA-256(label | SECRET_KEY) | label)

Here SECRET_KEY is the only secret, so it has to be one that nobody can guess. Django makes it of 50
random characters, and its check security.W009 looks at that.
"""

import os
from base64 import urlsafe_b64encode
from contextlib import suppress
from hashlib import sha256
from typing import Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

# The label. A later format gets another label.
FORMAT = b"django_sessionkit.signing_key.1"
COUNTER = b"\0\0\0\1"
NONCE = 12  # bytes
# A key of HS256 is as long as the hash (RFC 7518 §3.2).
SHARED_KEY = 32  # bytes
# A coordinate of P-256 (RFC 7518 §6.2.1.2).
COORDINATE = 32  # bytes

# What the names of RFC 7518 and RFC 8037 stand for. HS256 has one key, which both sides know.
ES256, EDDSA, HS256 = "ES256", "EdDSA", "HS256"
ALGORITHMS = (ES256, EDDSA, HS256)

# A key that signs, or that verifies: bytes for HS256.
SignsWith = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | bytes
VerifiesWith = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | bytes


def new_private_key(algorithm: str) -> bytes:
    """Return a new private key: PKCS #8 in DER, or random bytes for HS256."""
    private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    if algorithm == HS256:
        return os.urandom(SHARED_KEY)
    if algorithm == EDDSA:
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = ec.generate_private_key(ec.SECP256R1())
    return private.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def signs_with(private: bytes, algorithm: str) -> SignsWith:
    """Return a private key as what PyJWT signs with."""
    if algorithm == HS256:
        return private
    key = serialization.load_der_private_key(private, password=None)
    return cast("ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey", key)


def verifies_with(private: SignsWith) -> VerifiesWith:
    """Return what verifies the signatures of a private key."""
    return private if isinstance(private, bytes) else private.public_key()


def public_jwk(private: SignsWith, kid: str, algorithm: str) -> dict[str, Any] | None:
    """
    Return the JWK of the public key (RFC 7517; RFC 7518 §6.2 for ES256, RFC 8037 §2 for EdDSA), or
    None for HS256: its only key is a secret.
    """
    of_all = {"kid": kid, "alg": algorithm, "use": "sig"}
    public = verifies_with(private)
    if isinstance(public, bytes):
        return None
    if isinstance(public, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": _text(public.public_bytes_raw()), **of_all}
    point = public.public_numbers()
    x, y = (_text(number.to_bytes(COORDINATE)) for number in (point.x, point.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, **of_all}


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def seal(private: bytes, kid: str, algorithm: str) -> bytes:
    """Return a private key as bytes that only the holder of SECRET_KEY can read or change."""
    nonce = os.urandom(NONCE)
    cipher = AESGCM(_key_of(settings.SECRET_KEY))
    return nonce + cipher.encrypt(nonce, private, _associated(kid, algorithm))


def unseal(sealed: bytes, kid: str, algorithm: str) -> bytes | None:
    """
    Return a private key as it was given to ``seal()``, or None if it does not open: it was tampered
    with, is that of another row, or was sealed with a SECRET_KEY that SECRET_KEY_FALLBACKS no
    longer names.
    """
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        with suppress(InvalidTag, ValueError):  # ValueError: too short to hold a nonce
            cipher = AESGCM(_key_of(secret))
            return cipher.decrypt(sealed[:NONCE], sealed[NONCE:], _associated(kid, algorithm))
    return None


def _key_of(secret: str | bytes) -> bytes:
    root = sha256(FORMAT + (secret.encode() if isinstance(secret, str) else secret)).digest()
    return sha256(COUNTER + root + FORMAT).digest()


def _associated(kid: str, algorithm: str) -> bytes:
    return FORMAT + f"{kid} {algorithm}".encode()

"""
Tokens: a session, said to another service for a few minutes, which verifies it without asking.

A token is a JWT (RFC 7519), signed as RFC 8725 advises: one algorithm for each key, a type of its
own, and a header that says nothing but these and the id of the key. It has the claims of RFC 9068,
without ``client_id``: there is no client of OAuth. The session renews it, so there is no refresh
token to steal.

This is the only module that imports PyJWT: the extra ``django-sessionkit[jwt]``.
"""

import json
import secrets
import uuid
from base64 import urlsafe_b64decode
from typing import Any

import jwt
from asgiref.sync import sync_to_async
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.utils.module_loading import import_string

from django_sessionkit import clock, epochs
from django_sessionkit.accounts import is_disabled, key_of, user_in, user_of
from django_sessionkit.clock import as_milliseconds
from django_sessionkit.conf import conf
from django_sessionkit.exceptions import InvalidToken, NoToken
from django_sessionkit.models import UserSession
from django_sessionkit.signing_keys import LEEWAY, LONGEST_AGE, Key, keys, signing_key

TYPE = "at+jwt"  # RFC 9068 §2.1
HEADER = {"alg", "kid", "typ"}
# A longer token is not looked at. Servers take about so many bytes of a header.
LONGEST = 8192
# What every token has, and of which type.
CLAIMS = {"iss": str, "aud": str, "sub": str, "sid": str, "jti": str, "iat": int, "exp": int}
# What no function of the site may say. It may say "acr" and "amr".
OURS = {*CLAIMS, "auth_time", "nbf", "act"}

# The values of "acr". In OpenID Connect Core §2, "0" is said of a long-lived cookie: nobody has
# proved for a while who they are. "1" is said where somebody just has.
BY_COOKIE, BY_PROOF = "0", "1"

# What PyJWT raises, and our word for that. The first that fits.
CODES: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "expired",
    jwt.ImmatureSignatureError: "not_yet_valid",
    jwt.InvalidAudienceError: "wrong_audience",
    jwt.InvalidIssuerError: "wrong_issuer",
    jwt.InvalidSignatureError: "wrong_signature",
    jwt.PyJWTError: "malformed",
}

Claims = dict[str, Any]


# Issuing.


def issue(session: SessionBase, audience: str | None = None) -> str:
    """
    Return a token of a session that is signed in, for an audience, SESSIONKIT_TOKEN_AUDIENCE by
    default. It is valid for SESSIONKIT_TOKEN_AGE seconds, and never longer than the session is if
    nobody uses it. This looks at the row of the session: one statement. A request that has just
    signed somebody in has to save the session first.

    Raises NoToken for a session that is not signed in, is locked or has ended, ImproperlyConfigured
    if there is no key or no issuer, ValueError if the function of SESSIONKIT_TOKEN_CLAIMS says what
    it may not, and StoreUnavailable.
    """
    row = _row_of(session)
    now, sub = clock.now(), key_of(row.user)
    claims: Claims = {
        "iss": _issuer(),
        "aud": audience or _audience(),
        "sub": sub,
        "sid": str(row.pk),
        "iat": now // 1000,
        "exp": _end(session, now) // 1000,
        "jti": secrets.token_urlsafe(12),
        **_proof(session, sub),
        **_more(row.user, session),
    }
    if claims["exp"] <= claims["iat"]:
        raise NoToken("ended")
    key = signing_key()
    header = {"kid": key.kid, "typ": TYPE}
    return jwt.encode(claims, key.signs_with, algorithm=key.algorithm, headers=header)


async def aissue(session: SessionBase, audience: str | None = None) -> str:
    """The async form of issue()."""
    return await sync_to_async(issue)(session, audience)


def _row_of(session: Any) -> UserSession:
    """Return the row of a session that may have a token, with its user. Raises NoToken."""
    if getattr(session, "locked", None) or getattr(session, "waits_for_room", None) is not None:
        raise NoToken("locked")
    handle = getattr(session, "handle", None)  # no engine of ours: none of its sessions has a row
    if handle is None:
        raise NoToken("not_signed_in")
    rows = UserSession.objects.primary().active().select_related("user")
    users = [user_in(session), getattr(session, "person", None)]
    row = rows.filter(~epochs.over(users), pk=handle).first()
    if row is None or is_disabled(row.user):
        raise NoToken("ended")
    return row


def _end(session: Any, now: int) -> int:
    """Return when a token of this session expires, in milliseconds since the epoch."""
    left = session.time_left
    ages = (conf.SESSIONKIT_TOKEN_AGE, left.expires_in, left.idle_in)
    return now + int(1000 * min(age for age in ages if age is not None))


def _proof(session: Any, sub: str | None) -> Claims:
    """Return what a token says of who is behind a session, and of their last proof of identity."""
    claims: Claims = {"acr": BY_COOKIE}
    age = session.proof_age
    if age is not None:  # None: the session was adopted, and nobody knows of a proof
        claims["auth_time"] = as_milliseconds(session.authenticated_at) // 1000
        claims["acr"] = BY_PROOF if age <= session.policy.recent else BY_COOKIE
    if session.person != sub:  # staff act as the user
        claims["act"] = {"sub": session.person}  # RFC 8693 §4.1
    return claims


def _more(user: AbstractBaseUser, session: SessionBase) -> Claims:
    """Return the claims that the site adds. Raises ValueError for one that only we may say."""
    path = conf.SESSIONKIT_TOKEN_CLAIMS
    claims: Claims = import_string(path)(user, session) if path else {}
    if taken := OURS.intersection(claims):
        raise ValueError(f"{path} must not say {', '.join(sorted(taken))}.")
    return claims


def _issuer() -> str:
    issuer = conf.SESSIONKIT_TOKEN_ISSUER or conf.SESSIONKIT_SITE_URL
    if not issuer:
        raise ImproperlyConfigured("Tokens need SESSIONKIT_TOKEN_ISSUER, or SESSIONKIT_SITE_URL.")
    return issuer


def _audience() -> str:
    return conf.SESSIONKIT_TOKEN_AUDIENCE or _issuer()


# Verifying.


def verify(token: str, *, audience: str | None = None, check_session: bool = False) -> Claims:
    """
    Return the claims of a token of this site, for an audience, SESSIONKIT_TOKEN_AUDIENCE by
    default. With ``check_session``, one statement asks whether the session still goes on: then a
    token ends with its session, rather than minutes later.

    Raises InvalidToken, and ImproperlyConfigured if there is no issuer.
    """
    claims = _verified(token, audience)
    if check_session:
        _user_in(claims)
    return claims


async def averify(
    token: str, *, audience: str | None = None, check_session: bool = False
) -> Claims:
    """The async form of verify()."""
    return await sync_to_async(verify)(token, audience=audience, check_session=check_session)


def authenticate(
    token: str, *, audience: str | None = None, check_session: bool = False
) -> tuple[AbstractBaseUser, Claims]:
    """
    Return the user of a token, and its claims, as verify() does. Raises InvalidToken, also for a
    user who was disabled or deleted.
    """
    claims = _verified(token, audience)
    if check_session:
        return _user_in(claims), claims
    try:
        user = user_of(claims["sub"])
    except (ValueError, ValidationError):  # no primary key of this site's users
        user = None
    if user is None or is_disabled(user):
        raise InvalidToken("user_disabled")
    return user, claims


def _verified(token: str, audience: str | None) -> Claims:
    # The shape comes first: it costs little, and PyJWT is given nothing that is odd.
    header, claims = _parsed(token)
    key = _key_of(header)
    for name, its_type in CLAIMS.items():
        if type(claims.get(name)) is not its_type:
            raise InvalidToken("malformed")
    if type(claims.get("nbf", 0)) is not int:  # none of ours has it
        raise InvalidToken("malformed")
    try:
        jwt.decode(
            token,
            key.verifies_with,
            algorithms=[key.algorithm],
            audience=audience or _audience(),
            issuer=_issuer(),
            leeway=LEEWAY,
            options={"strict_aud": True},
        )
    except jwt.PyJWTError as error:
        raise InvalidToken(_code_of(error)) from None
    # Nobody but who holds a key of HS256, or has stolen one, can make a token that lives for long.
    if claims["exp"] - claims["iat"] > LONGEST_AGE:
        raise InvalidToken("malformed")
    return claims


def _parsed(token: Any) -> tuple[Claims, Claims]:
    """Return header and claims of a token, before anything is verified. Raises InvalidToken."""
    if not isinstance(token, str) or len(token) > LONGEST or not token.isascii():
        raise InvalidToken("malformed")
    parts = token.split(".")
    if len(parts) != 3:  # four dots: it is encrypted (RFC 7516)
        raise InvalidToken("malformed")
    header, claims = _object(parts[0]), _object(parts[1])
    # Nothing leads us to a key ("jku", "x5u", "jwk"), or asks for what we do not know ("crit").
    if set(header) != HEADER:
        raise InvalidToken("malformed")
    if header["typ"] != TYPE:
        raise InvalidToken("wrong_type")
    return header, claims


def _object(part: str) -> Claims:
    """Return the JSON object in a part of a token. No name may be there twice (RFC 7519 §4)."""
    try:
        data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
        found = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise InvalidToken("malformed") from None
    if not isinstance(found, dict):
        raise InvalidToken("malformed")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> Claims:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _key_of(header: Claims) -> Key:
    """Return our key with the id in a header. The id is compared, and used for nothing else."""
    for key in keys():
        if key.kid == header["kid"]:
            if key.algorithm == header["alg"]:
                return key
            raise InvalidToken("wrong_algorithm")
    raise InvalidToken("unknown_key")


def _code_of(error: jwt.PyJWTError) -> str:
    return next(code for kind, code in CODES.items() if isinstance(error, kind))


def _user_in(claims: Claims) -> AbstractBaseUser:
    """Return the user of a token whose session goes on, by one statement. Raises InvalidToken."""
    try:
        handle = uuid.UUID(claims["sid"])
    except ValueError:
        raise InvalidToken("malformed") from None
    rows = UserSession.objects.primary().active().select_related("user")
    users = [claims["sub"], claims.get("act", {}).get("sub")]
    row = rows.filter(~epochs.over(users), pk=handle, waits=False).first()
    if row is None or row.is_locked or key_of(row.user) != claims["sub"]:
        raise InvalidToken("session_ended")
    if is_disabled(row.user):
        raise InvalidToken("user_disabled")
    return row.user

"""
The keys that sign tokens, as rows of SigningKey: made, rotated, retired, and kept in the process
for a minute. One key signs at a time, the newest whose time has come. The keys before it verify
for as long as their tokens live.
"""

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connections, transaction
from django.db.models import Max
from django.utils import timezone

from django_sessionkit import clock, key_material
from django_sessionkit.clock import as_milliseconds
from django_sessionkit.conf import conf
from django_sessionkit.key_material import SignsWith, VerifiesWith
from django_sessionkit.models import SigningKey, SigningKeyQuerySet

security_logger = logging.getLogger("django.security.SuspiciousSession")

# Seconds for which a process keeps the keys, and others may keep the JSON of the public ones.
KEPT = 60
JWKS_AGE = 300
# Seconds after which a new key signs: everybody knows it by then. A minute is for clocks that are
# not set alike.
WAIT = KEPT + JWKS_AGE + 60
# The longest SESSIONKIT_TOKEN_AGE, in seconds.
LONGEST_AGE = 3600
# Seconds by which two clocks may differ. A token is valid for so much longer.
LEEWAY = 10

HOW_TO_MAKE_ONE = "No key signs tokens here. Make one: manage.py tokenkeys --make."


class Key(NamedTuple):
    """A key that opens here. Moments are milliseconds since the epoch."""

    kid: str
    algorithm: str
    signs_with: SignsWith
    verifies_with: VerifiesWith
    signs_from: int
    verifies_until: int | None

    def verifies(self, now: int) -> bool:
        return self.verifies_until is None or now < self.verifies_until

    @property
    def jwk(self) -> dict[str, Any] | None:
        return key_material.public_jwk(self.signs_with, self.kid, self.algorithm)


# What this process keeps, by database and, with django-tenants, schema: the moment, and the keys.
_kept: dict[tuple[str, str], tuple[int, list[Key]]] = {}


# Asked for each token.


def keys() -> list[Key]:
    """Return the keys that verify now, the newest first. At most one query in KEPT seconds."""
    rows, now = SigningKey.objects.primary(), clock.now()
    place = rows.db, str(getattr(connections[rows.db], "schema_name", ""))
    at, kept = _kept.get(place, (0, []))
    # Not negative: somebody has put the clock back. Not empty: the first key is used at once.
    if not kept or not 0 <= now - at < 1000 * KEPT:
        kept = [key for row in rows.verifying().order_by("-number") if (key := _opened(row))]
        _kept[place] = now, kept
    return [key for key in kept if key.verifies(now)]


def signing_key() -> Key:
    """Return the key that signs now. Raises ImproperlyConfigured if there is none."""
    now = clock.now()
    for key in keys():
        if key.signs_from <= now:
            return key
    raise ImproperlyConfigured(HOW_TO_MAKE_ONE)


def jwks() -> dict[str, Any]:
    """
    Return the JWK Set (RFC 7517 §5) of the public keys, that of the next key too. No key of HS256
    is in it.
    """
    return {"keys": [jwk for key in keys() if (jwk := key.jwk)]}


def _opened(row: SigningKey) -> Key | None:
    """
    Return the key of a row. Its public half is made of the private one, so that a key which
    somebody else has written into the table is none: without SECRET_KEY, it does not open.
    """
    private = key_material.unseal(bytes(row.private), row.kid, row.algorithm)
    if private is None:
        security_logger.warning("The signing key %s does not open with this SECRET_KEY.", row.kid)
        return None
    pair = key_material.signs_with(private, row.algorithm)
    start = as_milliseconds(row.signs_from)
    until = as_milliseconds(row.verifies_until) if row.verifies_until else None
    return Key(row.kid, row.algorithm, pair, key_material.verifies_with(pair), start, until)


def opens(row: SigningKey) -> bool:
    """Tell whether a key can be used: it was sealed with a SECRET_KEY that the site still has."""
    return key_material.unseal(bytes(row.private), row.kid, row.algorithm) is not None


def _usable(rows: SigningKeyQuerySet) -> list[SigningKey]:
    """Return the keys that verify now, the newest first, without those that do not open."""
    return [row for row in rows.verifying().order_by("-number") if opens(row)]


def forget() -> None:
    """Forget the keys that this process keeps."""
    _kept.clear()


# Asked by the command. Of two at once that add a key, one has to look again: the numbers of keys
# are unique. Each transaction writes first, or two at once could fail on SQLite.


def make() -> SigningKey | None:
    """Make the first key, which signs at once. Return None if some key signs, or is going to."""
    return _changed(_make)


def rotate() -> SigningKey | None:
    """
    Make the next key, in the algorithm that the settings name. It is published at once, and signs
    WAIT seconds later. The key before it verifies until the last of its tokens has expired. Return
    None if a next key waits already.
    """
    return _changed(_rotate)


def retire(kid: str) -> SigningKey | None:
    """
    Retire a key at once, for it was stolen: its tokens are invalid here within KEPT seconds. If no
    other key signs now, the next key does so at once, or a new one. Return the key that signs now,
    or None if there is no key with this id that verifies.
    """
    return _changed(partial(_retire, kid))


Change = Callable[[SigningKeyQuerySet, datetime], SigningKey | None]


def _changed(change: Change) -> SigningKey | None:
    rows = SigningKey.objects.primary()
    try:
        with suppress(IntegrityError):
            return change(rows, timezone.now())
        return change(rows, timezone.now())
    finally:
        forget()


def _make(rows: SigningKeyQuerySet, now: datetime) -> SigningKey | None:
    return None if _usable(rows) else _add(_new(rows, now))


def _rotate(rows: SigningKeyQuerySet, now: datetime) -> SigningKey | None:
    usable = _usable(rows)
    if not usable:
        return _make(rows, now)
    if usable[0].signs_from > now:
        return None
    signs_from = now + timedelta(seconds=WAIT)
    last_token = signs_from + timedelta(seconds=LONGEST_AGE + LEEWAY)
    new = _new(rows, signs_from)
    with transaction.atomic(rows.db):
        _add(new)
        before = rows.filter(number__lt=new.number)
        before.filter(verifies_until=None).update(verifies_until=last_token)
        # What verifies nothing any more need not rest anywhere.
        before.filter(verifies_until__lte=now).update(private=b"")
    return new


def _retire(kid: str, rows: SigningKeyQuerySet, now: datetime) -> SigningKey | None:
    with transaction.atomic(rows.db):
        if not rows.verifying().filter(kid=kid).update(verifies_until=now, private=b""):
            return None
        # A key that was rotated out does not come back: it verifies until its last token ends.
        left = next((row for row in _usable(rows) if row.verifies_until is None), None)
        if left is None:
            return _add(_new(rows, now))
        if left.signs_from > now:
            left.signs_from = now
            left.save(using=rows.db, update_fields=["signs_from"])
        return left


def _new(rows: SigningKeyQuerySet, signs_from: datetime) -> SigningKey:
    """Return a new key, with the next number, that is not stored yet."""
    algorithm, kid = conf.SESSIONKIT_TOKEN_ALGORITHM, secrets.token_hex(8)
    private = key_material.new_private_key(algorithm)
    return SigningKey(
        number=rows.aggregate(last=Max("number", default=0))["last"] + 1,
        kid=kid,
        algorithm=algorithm,
        private=key_material.seal(private, kid, algorithm),
        created_at=timezone.now(),
        signs_from=signs_from,
    )


def _add(key: SigningKey) -> SigningKey:
    """Store a key. Raises IntegrityError if another one was added meanwhile."""
    database = SigningKey.objects.primary().db
    with transaction.atomic(database):
        key.save(using=database, force_insert=True)
    return key

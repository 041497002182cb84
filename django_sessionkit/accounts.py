"""What a site says of a user: the policy, whether the account is disabled, the password hash."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model, load_backend
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.signing import BadSignature, TimestampSigner
from django.db import models, router
from django.db.models import OuterRef, Q, Subquery
from django.db.models.lookups import IsNull
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare
from django.utils.module_loading import import_string

from django_sessionkit.conf import conf
from django_sessionkit.policy import Policy


def policy_of(user: AbstractBaseUser, request: HttpRequest | None = None) -> Policy:
    """
    Return what SESSIONKIT_POLICY says of a user. Raises TypeError if the answer is no Policy.
    """
    policy = import_string(conf.SESSIONKIT_POLICY)(user, request)
    if not isinstance(policy, Policy):
        raise TypeError(f"{conf.SESSIONKIT_POLICY} has to return a Policy, not {policy!r}.")
    return policy


def user_in(data: Any, known: str | None = None) -> str | None:
    """
    Return the primary key of the user whom the dictionary of a session names, as text, or None. If
    the dictionary says what is ``known``, this takes no time.

    A dictionary that somebody has filled by hand may hold a number where login() writes text, or
    another spelling of a UUID: that is the same user. Raises ValidationError for what is no key.
    """
    key = data.get(SESSION_KEY)
    if key is None:
        return None
    if key == known:
        return known
    return str(get_user_model()._meta.pk.to_python(key))


def storable_key(key: object) -> str:
    """
    Return the primary key of a user as text, as the database has it. Raises ValidationError for
    what its column cannot hold.
    """
    column: Any = get_user_model()._meta.pk
    while column.remote_field:  # of a table that inherits from another
        column = column.target_field
    value = column.to_python(key)
    # Not by its other validators: Django asks forms alone to keep to those.
    if isinstance(column, models.IntegerField):
        column.run_validators(value)
    elif isinstance(column, models.CharField) and len(value) > (column.max_length or len(value)):
        raise ValidationError("This is too long for a key of a user.")
    return str(value)


def key_of(user: AbstractBaseUser) -> str | None:
    """Return the primary key of a user as user_in() has it."""
    return user_in({SESSION_KEY: user._meta.pk.value_to_string(user)})


# Staff who act as a user. django-hijack and django-loginas sign the user in, and note in the new
# session who does that. django-impersonate leaves staff their session, and changes request.user.

# Somebody acts as the user of a session, and the note does not say who.
UNKNOWN = "?"


def actor_in(data: Any) -> str | None:
    """
    Return the primary key, as text, of whoever acts as the user of this session, by django-hijack
    or django-loginas. Return UNKNOWN if the note of that names nobody, or None if there is no note.
    """
    if history := data.get("hijack_history"):
        # Whoever acts as somebody can act as a third person from there.
        return _key_in(history[0]) if isinstance(history, (list, tuple)) else UNKNOWN
    flag = getattr(settings, "LOGINAS_FROM_USER_SESSION_FLAG", "loginas_from_user")
    if note := data.get(flag):
        try:
            return _key_in(TimestampSigner().unsign(str(note)))
        except BadSignature:
            return UNKNOWN
    return None


def _key_in(note: object) -> str:
    try:
        return str(get_user_model()._meta.pk.to_python(note))
    except ValidationError:
        return UNKNOWN


def acting_user(user: Any, session: Any) -> Any:
    """
    Return who is behind a request of this user: mostly the user, or else the staff who act as that
    user.
    """
    person = getattr(session, "person", None)
    key = key_of(user)
    if person in (None, key):
        return user
    acts_as = user_in(session), _key_in(session.get("_impersonate"))
    # Or else the request says who its user is, by a token say, and the session is another matter.
    return (user_of(person) if key in acts_as else None) or user


def person_in(session: Any, user: AbstractBaseUser) -> AbstractBaseUser | None:
    """
    Return whose proof of identity a session takes: that of ``user``, if the session is theirs and
    nobody acts as them, or else that of who is behind it. Return None for nobody.
    """
    person = getattr(session, "person", None)
    return user if person in (None, key_of(user)) else user_of(person)


def user_of(pk: str) -> AbstractBaseUser | None:
    """Return the user whose primary key a session names, or None if there is no such user."""
    users = get_user_model()._base_manager.using(router.db_for_write(get_user_model()))
    user: AbstractBaseUser | None = users.filter(pk=pk).first()
    return user


def stored_policy_of(pk: str, request: HttpRequest | None) -> Policy:
    """Return what SESSIONKIT_POLICY says of the user with this key, as the database has them."""
    user = user_of(pk)
    return Policy() if user is None else policy_of(user, request)


def is_of_none(users: Any) -> Q:
    """Return the condition for rows of sessions whose user is none of ``users``, a QuerySet."""
    theirs = users.filter(pk=OuterRef("user_id")).values("pk")[:1]
    # Not user__in, nor Exists(): for a few rows, PostgreSQL would read all users.
    return Q(IsNull(Subquery(theirs), True))


def is_disabled(user: AbstractBaseUser) -> bool:
    """
    Tell whether a user may have no session: the user is inactive, and no authentication backend of
    the site lets inactive users in.
    """
    if getattr(user, "is_active", True):
        return False
    checks = (getattr(backend, "user_can_authenticate", None) for backend in _backends())
    return not any(check(user) for check in checks if check)


def _backends() -> Iterator[Any]:
    """Yield the site's authentication backends. One that lacks a setting lets nobody in."""
    for path in settings.AUTHENTICATION_BACKENDS:
        with suppress(ImproperlyConfigured):  # or the user who is disabled could not be saved
            yield load_backend(path)


def has_password_of(user: AbstractBaseUser, auth_hash: str) -> bool:
    """
    Tell whether a session was signed in with the password that its user has now, by the hash that
    the sign-in has left. django.contrib.auth.get_user() tells the same.
    """
    if not auth_hash or not hasattr(user, "get_session_auth_hash"):
        return True
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return any(constant_time_compare(auth_hash, each) for each in hashes)


def has_hash_of_former_secret(pk: str, auth_hash: str) -> bool:
    """
    Tell whether the hash that a sign-in has left is right, but made with a former SECRET_KEY. Then
    django.contrib.auth.get_user() gives the session a new key.
    """
    user = user_of(pk)
    if user is None or not hasattr(user, "get_session_auth_fallback_hash"):
        return False
    hashes = user.get_session_auth_fallback_hash()
    return any(constant_time_compare(auth_hash, each) for each in hashes)

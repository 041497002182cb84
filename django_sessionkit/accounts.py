"""What a site says of a user: the policy, whether the account is disabled, the password hash."""

from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_backends, get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import router
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


def is_impersonated(data: Any) -> bool:
    """Tell whether staff act as the user of this session, by django-hijack or django-loginas."""
    flag = getattr(settings, "LOGINAS_FROM_USER_SESSION_FLAG", "loginas_from_user")
    return any(data.get(name) for name in ("hijack_history", flag))


def user_of(pk: str) -> AbstractBaseUser | None:
    """Return the user whose primary key a session names, or None if there is no such user."""
    users = get_user_model()._base_manager.using(router.db_for_write(get_user_model()))
    user: AbstractBaseUser | None = users.filter(pk=pk).first()
    return user


def stored_policy_of(pk: str, request: HttpRequest | None) -> Policy:
    """Return what SESSIONKIT_POLICY says of the user with this key, as the database has them."""
    user = user_of(pk)
    return Policy() if user is None else policy_of(user, request)


def is_disabled(user: AbstractBaseUser) -> bool:
    """
    Tell whether a user may have no session: the user is inactive, and no authentication backend of
    the site lets inactive users in.
    """
    if getattr(user, "is_active", True):
        return False
    checks = [getattr(backend, "user_can_authenticate", None) for backend in get_backends()]
    return not any(check(user) for check in checks if check)


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

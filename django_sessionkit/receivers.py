"""
What only a signal can tell: that a user signs in again, and that an account changes. The engine
does everything else, however a session comes to be written.

``update()``, ``bulk_update()`` and SQL send no signal. The write of activity and the purge notice
these changes.
"""

import uuid
from collections.abc import Collection
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Any, cast

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model, QuerySet
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import m2m_changed, post_save, pre_delete, pre_save
from django.dispatch import receiver
from django.utils.functional import LazyObject

from django_sessionkit import ranges
from django_sessionkit.accounts import acting_user, is_disabled, key_of, policy_of, user_in
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import (
    EndReason,
    UserSession,
    UserSessionQuerySet,
)
from django_sessionkit.visit.current import current_request, loaded_session

# The fields that give rights to a user, beside groups and permissions.
FLAGS = ("is_staff", "is_superuser")
# The fields whose change can end sessions, unless the user model computes one of them from others.
FIELDS = ("password", "is_active", *FLAGS)
# The values of Policy.on_privilege_change, the strictest last.
STRICTNESS = ("keep", "renew", "end")


@receiver(user_logged_in, dispatch_uid="django_sessionkit.reauthenticated")
def reauthenticated(request: Any = None, user: Any = None, **kwargs: Any) -> None:
    """
    Give the session a new key when its own user signs in again (ASVS 7.2.4).

    In every other case, Django's login() has changed the key or the session. A session that has a
    row here is one that login() has left alone.
    """
    session: Any = getattr(request, "session", None)
    if isinstance(session, SessionBase):
        session.signing_in = user  # type: ignore[attr-defined]  # the engine need not fetch them
    # Not if this request has made the session: then this is the sign-in that it was made for. A
    # receiver of this signal, of django-axes say, may have created it.
    if not getattr(session, "handle", None) or session.is_new:
        return
    # Only if the session is this user's. A view that gives out tokens also sends this signal, and
    # the session of its request may be another user's.
    if user and user_in(session) == key_of(user):
        session.reauthenticate()


# An account is saved.


def remember(
    instance: Any, raw: bool, using: str, update_fields: Collection[str] | None, **kwargs: Any
) -> None:
    """
    Fetch the user as the database has it, if this save can end sessions, and keep it on the
    instance: act_on_changes() compares it with what was saved.
    """
    remember_raw(instance, raw)
    user, before = get_user_model(), None
    key = getattr(instance, user._meta.pk.attname)  # a child model can have a key of its own
    if not raw and key is not None and _may_matter(update_fields):
        before = user._base_manager.using(using).filter(pk=key).first()
    # A list, because another receiver can save the user again before act_on_changes() runs.
    vars(instance).setdefault("_sessionkit_before", []).append(before)


def act_on_changes(instance: Any, update_fields: Collection[str] | None, **kwargs: Any) -> None:
    """End the sessions that must not outlive what this save has changed (ASVS 7.4.2, 7.4.3)."""
    *earlier, before = vars(instance).pop("_sessionkit_before", [None])
    if earlier:
        instance._sessionkit_before = earlier
    if before is None:
        return
    # The user as the database has it now. A field that the save did not write is as before, even if
    # the instance has another value. Reading a deferred field from the instance would take a query.
    after = copy(before)
    for field in before._meta.concrete_fields:
        if update_fields is None or {field.name, field.attname} & {*update_fields}:
            setattr(after, field.attname, getattr(instance, field.attname))
    sessions = UserSession.objects.filter(user=before.pk)
    if is_disabled(after):
        _end(sessions, EndReason.ACCOUNT_DISABLED)
    # End them also if a sign-in has only upgraded the stored hash. Django would refuse these
    # sessions at their next use anyway, and until then the list would show them as alive.
    if _auth_hash(after) != _auth_hash(before):
        _end(_but_the_current(sessions), EndReason.PASSWORD_CHANGE)
    if any(getattr(after, flag, None) != getattr(before, flag, None) for flag in FLAGS):
        # The policy of staff holds for a user who becomes staff, and for a user who was staff until
        # now: the stricter answer counts.
        answers = [policy_of(user).on_privilege_change for user in (before, after)]
        _change_privileges({before.pk: max(answers, key=STRICTNESS.index)})


def _may_matter(update_fields: Collection[str] | None) -> bool:
    """Tell whether a save of these fields can end sessions. None means a save of all fields."""
    if update_fields is None:
        return True
    user = get_user_model()
    auth_hash = getattr(user, "get_session_auth_hash", None)
    if auth_hash in (None, AbstractBaseUser.get_session_auth_hash) and all(
        isinstance(getattr(user, name, False), (bool, DeferredAttribute)) for name in FIELDS
    ):
        return not {*FIELDS}.isdisjoint(update_fields)
    return {*update_fields} != {"last_login"}  # every sign-in saves that


def _auth_hash(user: Any) -> str | None:
    return user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else None


# An account is deleted.


def end_before_deletion(instance: Any, **kwargs: Any) -> None:
    """End all sessions of the user, while their rows still exist."""
    _end(UserSession.objects.filter(user=instance), EndReason.ACCOUNT_DISABLED)


# Groups and permissions.


def remember_raw(instance: Any, raw: bool, **kwargs: Any) -> None:
    """
    Keep on a user or group whether it was saved as a fixture has it: what the fixture says of its
    groups and permissions is saved next, and no signal of that has ``raw``.
    """
    if raw:
        instance._sessionkit_raw = True
    else:
        vars(instance).pop("_sessionkit_raw", None)


def change_privileges(
    field: Any,
    groups: Any | None,
    *,
    instance: Any,
    action: str,
    reverse: bool,
    pk_set: set[Any] | None,
    using: str,
    **kwargs: Any,
) -> None:
    """
    Renew or end the sessions of the users whose groups or permissions change.

    Django calls this after rows of ``field`` were added and before rows are removed, inside one
    transaction. Memberships that do not change are left alone, and so are fixtures. If ``field``
    belongs to a group, ``groups`` is the field of the user model that says which users are in the
    group.
    """
    if action not in ("post_add", "pre_remove", "pre_clear"):
        return
    if vars(instance).get("_sessionkit_raw"):
        return
    near, far = field.m2m_field_name(), field.m2m_reverse_field_name()
    this, that = (far, near) if reverse else (near, far)
    rows = _rows(field, using).filter(**{this: instance})
    if pk_set is not None:  # None: all rows of the instance are removed
        rows = rows.filter(**{f"{that}__in": pk_set})
    if groups:
        those = rows.values_list(near, flat=True)
        rows = _rows(groups, using).filter(**{f"{groups.m2m_reverse_field_name()}__in": those})
        near = groups.m2m_field_name()
    # The field may belong to a parent of the user model, with a key of its own.
    steps = get_user_model()._meta.get_path_from_parent((groups or field).model)
    users = rows.values_list(
        "__".join([near, *(step.join_field.name for step in steps)]), flat=True
    )
    found = list(users.distinct())
    for start in range(0, len(found), ranges.ROWS):
        sessions = UserSession.objects.primary().filter(ended_at=None)
        signed_in = sessions.filter(user__in=found[start : start + ranges.ROWS])
        keys = set(signed_in.values_list("user", flat=True))
        people = get_user_model()._base_manager.using(using).filter(pk__in=keys)
        _change_privileges({user.pk: policy_of(user).on_privilege_change for user in people})


def _rows(field: Any, using: str) -> QuerySet[Any]:
    rows: QuerySet[Any] = field.remote_field.through._base_manager.using(using)
    return rows


# Ending and renewing.


def _change_privileges(answers: dict[Any, str]) -> None:
    """Renew or end the sessions of users, by their keys: ``answers`` says which for each user."""
    # Not active(): what only looks expired, by a clock that is ahead, must not be missed.
    sessions = UserSession.objects.primary().filter(ended_at=None)
    to_end = [key for key, answer in answers.items() if answer == "end"]
    _end(_but_the_current(sessions.filter(user__in=to_end)), EndReason.PRIVILEGE_CHANGE)
    # "end" leaves the current session alive: it gets a new key instead.
    to_renew = [key for key, answer in answers.items() if answer != "keep"]
    sessions.filter(user__in=to_renew).update(renew=True)


def _end(sessions: UserSessionQuerySet, reason: str) -> None:
    # A store that is down must not keep anybody from saving a user. The failure is logged and the
    # rows are marked, so that the next write of activity refuses what is left in the store.
    with suppress(StoreUnavailable):
        sessions.revoke(reason, _signed_in(), _current_handle())


def _but_the_current(sessions: UserSessionQuerySet) -> UserSessionQuerySet:
    """
    Return these sessions without that of the request, if the request has loaded its session. A
    script or a task that has loaded one is no request, and its session is not spared. A
    cookie that no store has confirmed proves nothing, and loading the session now could fail.
    """
    request = current_request.get()
    loaded = loaded_session.get()
    session: Any = loaded and loaded() if request is None else getattr(request, "session", None)
    if not hasattr(session, "_session_cache"):
        return sessions
    # Leave out a locked session, too. It may be about to be opened, by the password whose hash is
    # being upgraded.
    return sessions.other_than(getattr(session, "locked", None) or session)


def _current_handle() -> uuid.UUID | None:
    """Return the handle of the session of the request, if the request has loaded its session."""
    session: Any = getattr(current_request.get(), "session", None)
    return getattr(session, "handle", None) if hasattr(session, "_session_cache") else None


def _signed_in() -> AbstractBaseUser | None:
    """
    Return the user who is signed in, if the request has loaded them, or None. Loading the user now
    would cost queries. It would also sign out a user who has just changed their password: their
    session does not have the new hash yet.
    """
    request = current_request.get()
    known: dict[str, Any] = vars(request) if request else {}
    user = known.get("user")
    while issubclass(type(user), LazyObject):  # django-impersonate puts one into another
        user = vars(user)["_wrapped"]
    found: list[Any] = [user, known.get("_acached_user")]
    users = [
        each for each in found if issubclass(type(each), get_user_model()) and each.pk is not None
    ]
    session = getattr(request, "session", None)
    # A session that nobody has looked at has nothing to do with the user of the request.
    if users and hasattr(session, "_session_cache"):
        return cast("AbstractBaseUser", acting_user(users[0], session))
    return users[0] if users else None


# Connecting. By model, because Django deletes rows of a model with receivers more slowly.


def connect(user: type[Model]) -> None:
    """Connect the receivers to this user model, and to its groups and permissions."""
    for model in [model for model in apps.get_models() if issubclass(model, user)]:
        pre_save.connect(remember, sender=model)
        post_save.connect(act_on_changes, sender=model)
    for model in _proxies(user):
        pre_delete.connect(end_before_deletion, sender=model)
    for field in _many_to_many(user, "groups", "user_permissions"):
        _connect(field, None)
    for groups in _many_to_many(user, "groups"):
        for field in _many_to_many(groups.related_model, "permissions"):
            _connect(field, groups)
        # If a group is deleted, all its users leave it.
        deleted = partial(
            change_privileges, groups, None, action="pre_clear", reverse=True, pk_set=None
        )
        for model in _proxies(groups.related_model):
            pre_save.connect(remember_raw, sender=model)
            pre_delete.connect(deleted, sender=model, weak=False)


def _connect(field: Any, groups: Any) -> None:
    changed = partial(change_privileges, field, groups)
    m2m_changed.connect(changed, sender=field.remote_field.through, weak=False)


def _many_to_many(model: Any, *names: str) -> list[Any]:
    return [field for field in model._meta.many_to_many if field.name in names]


def _proxies(model: Any) -> list[type[Model]]:
    """Return a model and its proxies."""
    found = apps.get_models()
    return [each for each in found if each._meta.concrete_model is model._meta.concrete_model]


with suppress(ImproperlyConfigured):  # there is no user model: sessionkit.E011 says so
    connect(get_user_model())

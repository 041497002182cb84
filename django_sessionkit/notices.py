"""
When a user is told by mail. What happens is noted once it is committed, and handed on after the
answer: to Celery or to Django's Tasks, where the site has set one of them up, or else the mail is
sent here and now. Nobody waits for a broker or a mail server, or fails with one.

The note names what has happened and the handle of the session, and holds nothing else.
"""

import logging
import uuid
from collections import deque
from functools import partial
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.signals import request_finished
from django.db import close_old_connections, transaction
from django.dispatch import receiver

from django_sessionkit import mails, workers
from django_sessionkit.conf import conf
from django_sessionkit.models import EndReason, Novelty, UserSession
from django_sessionkit.signals import (
    Notice,
    session_key_reused,
    session_started,
    sessions_revoked,
)
from django_sessionkit.visit.current import is_in_request

logger = logging.getLogger("django_sessionkit")

# What waits for the end of a request. The first request of this process that ends takes all of it
# along: which one it belongs to makes no difference.
waiting: deque[tuple[str, uuid.UUID]] = deque()


@receiver(session_started, dispatch_uid="django_sessionkit.notice_of_start")
def notice_start(handle: uuid.UUID, novelty: str, **kwargs: Any) -> None:
    if novelty == Novelty.DEVICE:
        note(Notice.NEW_DEVICE, handle)


@receiver(session_key_reused, dispatch_uid="django_sessionkit.notice_of_reuse")
def notice_reuse(handle: uuid.UUID, **kwargs: Any) -> None:
    note(Notice.OLD_KEY, handle)


@receiver(sessions_revoked, dispatch_uid="django_sessionkit.notice_of_end")
def notice_end(
    handles: list[uuid.UUID], reason: str, by: AbstractBaseUser | None, **kwargs: Any
) -> None:
    """Note one session for each user, whatever the number of their sessions."""
    kinds = {Notice.OTHERS_ENDED, Notice.ENDED_BY_STAFF} & set(conf.SESSIONKIT_NOTICES)
    staff = reason == EndReason.REVOKED_BY_STAFF
    if not kinds or not (staff or (reason == EndReason.REVOKED and by is not None)):
        return
    rows = UserSession.objects.primary().filter(pk__in=handles)
    for user, handle in dict(rows.values_list("user", "pk")).items():
        is_own = by is not None and by.pk == user
        note(Notice.OTHERS_ENDED if is_own else Notice.ENDED_BY_STAFF, handle)


def note(kind: Notice, handle: uuid.UUID) -> None:
    """Note that a user is to be told of this, if the site wants it and nothing is rolled back."""
    if kind in conf.SESSIONKIT_NOTICES:
        committed = partial(_committed, kind.value, handle)
        transaction.on_commit(committed, using=UserSession.objects.primary().db, robust=True)


def _committed(kind: str, handle: uuid.UUID) -> None:
    if is_in_request():
        waiting.append((kind, handle))
    else:  # a script, or a task
        hand_on(kind, handle)


@receiver(request_finished, dispatch_uid="django_sessionkit.notices")
def answered(**kwargs: Any) -> None:
    """Hand on what has waited for the answer: by now, the server has sent it."""
    if not waiting:
        return
    while True:
        try:
            kind, handle = waiting.popleft()
        except IndexError:  # also if another thread has taken the last one
            break
        hand_on(kind, handle)
    close_old_connections()  # Django has done so before, and does not look again


def hand_on(kind: str, handle: uuid.UUID) -> None:
    """Have a worker send the mail, or send it. This raises nothing."""
    try:
        if (enqueue := workers.enqueue_of("notify")) is not None:
            enqueue(kind, handle.hex)
            return
    except Exception as error:  # whatever a broker raises; its address may be in the text
        name = type(error).__name__
        logger.error("No worker was given the notice %s of session %s: %s", kind, handle, name)
    try:
        mails.deliver(kind, handle)
    except Exception:  # a template of the site, a database that has gone
        logger.exception("The notice %s of session %s failed", kind, handle)

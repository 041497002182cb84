"""
What happens when Redis fails, on real servers that are killed, frozen and filled. A visitor is asked
to wait, and is who they were when it is over; nobody is signed out by it, and what was ended stays
ended.
"""

import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import UpdateError
from django.db import connection
from django.test import Client as Browser

from django_sessionkit.backends import redis
from django_sessionkit.backends.redis import SessionStore
from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import EndReason, UserSession, UserSessionQuerySet
from django_sessionkit.sealing import digest_of
from tests.redis_servers import (
    DURABLE,
    FORGETFUL,
    PATIENCE,
    SOCKET_TIMEOUT,
    Proxy,
    Server,
    sessions_in,
    wait_for,
)
from tests.servers import HOST, free_port
from tests.store import travel
from tests.test_middleware import PAGE, AsgiBrowser, key_of, sets_no_cookie

pytestmark = [pytest.mark.redis, pytest.mark.django_db]

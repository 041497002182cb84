"""
The engine of this leg passes the tests that engines of other people are tested with: those of
django_sessionkit.testing, sync and async.
"""

from contextlib import contextmanager
from unittest import mock

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from django.test import TestCase, TransactionTestCase

from django_sessionkit.backends import redis_clients
from django_sessionkit.testing.activity import ActivityContract
from django_sessionkit.testing.outages import OutageContract
from django_sessionkit.testing.races import RaceContract
from django_sessionkit.testing.sessions import SessionContract
from django_sessionkit.testing.storage import StorageContract
from tests import store
from tests.redis_servers import sessions_in
from tests.servers import HOST

ENGINE = settings.SESSION_ENGINE


class StorageTests(StorageContract, TestCase):
    engine = ENGINE

    def spoil(self, digest):
        store.tamper(digest, b"")


class AsyncStorageTests(StorageTests):
    asynchronous = True


@pytest.mark.redis
class ActivityTests(ActivityContract, TestCase):
    engine = ENGINE


class AsyncActivityTests(ActivityTests):
    asynchronous = True


class RaceTests(RaceContract, TransactionTestCase):
    engine = ENGINE


class AsyncRaceTests(RaceTests):
    asynchronous = True


class SessionTests(SessionContract, TestCase):
    engine = ENGINE

    # What these show, besides.

    @pytest.mark.standard("ASVS-7.2.2", "WSTG-SESS-03")
    def test_a_key_that_was_never_issued_is_not_adopted(self):
        super().test_a_key_that_was_never_issued_is_not_adopted()

    @pytest.mark.standard("NIST-SB-3")
    def test_a_new_key_kills_the_old_one(self):
        super().test_a_new_key_kills_the_old_one()

    @pytest.mark.standard("ASVS-7.4.1")
    def test_a_save_after_the_end_does_not_bring_it_back(self):
        super().test_a_save_after_the_end_does_not_bring_it_back()


class AsyncSessionTests(SessionTests):
    asynchronous = True


@contextmanager
def no_database():
    def fail(*args):
        raise OperationalError("no route to host")

    with connection.execute_wrapper(fail):
        yield


@contextmanager
def no_redis():
    line = mock.patch.object(redis_clients, "line", redis_clients.Line())
    with line, sessions_in(f"redis://{HOST}:1/0"):  # nobody listens there
        yield


if not store.IN_MEMORY:  # that cannot be down

    class OutageTests(OutageContract, TestCase):
        engine = ENGINE

        def outage(self):
            return no_redis() if store.ON_REDIS else no_database()

    class AsyncOutageTests(OutageTests):
        asynchronous = True


def test_what_is_not_defined_is_named():
    with pytest.raises(NotImplementedError, match=r"spoil\(digest\)"):
        StorageContract().spoil("0" * 64)
    with pytest.raises(NotImplementedError, match=r"outage\(\)"):
        OutageContract().outage()

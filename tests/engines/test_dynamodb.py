"""
An engine on a store that this package does not know, written from docs/engines.md. It passes the
tests that docs/engines.md names, against moto's DynamoDB: so one can be written from that page.
"""

import threading
from contextlib import contextmanager

import pytest
from django.test import TestCase, TransactionTestCase, override_settings
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from django_sessionkit.testing.outages import OutageContract
from django_sessionkit.testing.races import RaceContract
from django_sessionkit.testing.sessions import SessionContract
from django_sessionkit.testing.storage import StorageContract
from tests.engines import dynamodb
from tests.servers import HOST, free_port

pytestmark = pytest.mark.once

ENGINE = "tests.engines.dynamodb"
TABLE = "sessions"


class Quiet(WSGIRequestHandler):
    def log(self, *args):
        pass


@pytest.fixture(scope="module", autouse=True)
def server():
    """A DynamoDB that takes one request at a time: moto does not make its writes atomic."""
    app = DomainDispatcherApplication(create_backend_app)
    running = make_server(HOST, free_port(), app, request_handler=Quiet)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    with override_settings(DYNAMODB_SESSIONS=sessions_at(running.port)):
        dynamodb.client().create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "digest", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "digest", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield
        dynamodb.client().delete_table(TableName=TABLE)  # moto would have it the next time
    running.shutdown()
    thread.join()
    running.server_close()


def sessions_at(port):
    return {
        "table": TABLE,
        "timeout": 30,
        "endpoint_url": f"http://{HOST}:{port}",
        "region_name": "eu-central-1",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
    }


class StorageTests(StorageContract, TestCase):
    engine = ENGINE

    def spoil(self, digest):
        item = {**dynamodb.key(digest), "greeting": {"S": "hello"}}
        dynamodb.ask("put_item", Item=item)


class RaceTests(RaceContract, TransactionTestCase):
    engine = ENGINE


class SessionTests(SessionContract, TestCase):
    engine = ENGINE


class AsyncSessionTests(SessionTests):
    asynchronous = True


class OutageTests(OutageContract, TestCase):
    engine = ENGINE

    @contextmanager
    def outage(self):
        with override_settings(DYNAMODB_SESSIONS=sessions_at(port=1)):
            yield

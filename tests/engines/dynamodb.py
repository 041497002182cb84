"""
Sessions in DynamoDB: an engine as somebody else would write it, from docs/engines.md alone. There
is one item for each session. The time to live of the table is its attribute ``forget_at``.
"""

from collections.abc import Collection, Iterator
from functools import cache
from itertools import islice
from typing import Any, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

from django_sessionkit import clock
from django_sessionkit.backends import base
from django_sessionkit.backends.sealing import version_of
from django_sessionkit.storage import Stored

ALIVE = "expires_at > :now"
SAME = f"{ALIVE} AND version = :expected"
# What says that DynamoDB cannot do it now. All else that it refuses is a mistake of ours.
BUSY = {
    "InternalServerError",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
    "TransactionInProgressException",
}
CONFLICT = {"TransactionConflict", "TransactionConflictException"}
# A condition does not hold.
FAILED = {"ConditionalCheckFailed", "ConditionalCheckFailedException"}


class DynamoDBUnavailable(Exception):  # noqa: N818
    pass


class Conflict(DynamoDBUnavailable):
    """Another request writes to the same item at this moment."""


class SessionStore(base.SessionStore):
    unavailable: ClassVar = (*base.SessionStore.unavailable, BotoCoreError, DynamoDBUnavailable)

    @classmethod
    def read(cls, digest: str) -> Stored | None:
        answer = ask("get_item", Key=key(digest), ConsistentRead=True)
        item = answer.get("Item")
        try:
            if item is None or int(item["expires_at"]["N"]) <= clock.now():
                return None
            return Stored(bytes(item["payload"]["B"]), int(item["touched_at"]["N"]))
        except (KeyError, ValueError):  # malformed
            return None

    @classmethod
    def insert(cls, digest: str, payload: bytes, touched_at: int, expires_at: int) -> bool:
        item = {**key(digest), **values(payload, touched_at, expires_at)}
        return done("put_item", Item=item, ConditionExpression="attribute_not_exists(digest)")

    @classmethod
    def replace(cls, digest: str, payload: bytes, expires_at: int | None, expected: bytes) -> bool:
        return update(digest, expected, values(payload, None, expires_at))

    @classmethod
    def move(
        cls, old: str, new: str, payload: bytes, touched_at: int, expires_at: int, expected: bytes
    ) -> bool:
        delete = {
            "TableName": table(),
            "Key": key(old),
            "ConditionExpression": SAME,
            "ExpressionAttributeValues": now() | {":expected": {"B": expected}},
        }
        put = {
            "TableName": table(),
            "Item": {**key(new), **values(payload, touched_at, expires_at)},
        }
        return done("transact_write_items", TransactItems=[{"Delete": delete}, {"Put": put}])

    @classmethod
    def touch(
        cls, digest: str, touched_at: int, expires_at: int, expected: bytes | None = None
    ) -> bool:
        try:
            return update(digest, expected, values(None, touched_at, expires_at), tries=1)
        except Conflict:
            return False  # a touch waits for nobody

    @classmethod
    def remove(cls, digests: Collection[str]) -> None:
        for some in batches(digests, 25):
            left: Any = {table(): [{"DeleteRequest": {"Key": key(digest)}} for digest in some]}
            while left:
                left = ask("batch_write_item", RequestItems=left)["UnprocessedItems"]

    @classmethod
    def peek(cls, digests: Collection[str]) -> set[str]:
        found, present = set(), clock.now()
        for some in batches(digests, 100):
            keys = {"Keys": [key(digest) for digest in some], "ConsistentRead": True}
            left: Any = {table(): {**keys, "ProjectionExpression": "digest, expires_at"}}
            while left:
                answer = ask("batch_get_item", RequestItems=left)
                left = answer["UnprocessedKeys"]
                for item in answer["Responses"].get(table(), ()):
                    if int(item.get("expires_at", {}).get("N", 0)) > present:
                        found.add(item["digest"]["S"])
        return found


# The items.


def site() -> dict[str, Any]:
    """Return what a site says: the table, a timeout in seconds, and what boto3 is to know."""
    said: dict[str, Any] = settings.DYNAMODB_SESSIONS  # type: ignore[misc]  # of this engine
    return said


def table() -> str:
    name: str = site()["table"]
    return name


def key(digest: str) -> dict[str, Any]:
    return {"digest": {"S": digest}}


def values(
    payload: bytes | None, touched_at: int | None, expires_at: int | None
) -> dict[str, dict[str, Any]]:
    """Return the attributes of an item, without those that are None."""
    attributes: dict[str, dict[str, Any]] = {}
    if payload is not None:
        attributes |= {"payload": {"B": payload}, "version": {"B": version_of(payload)}}
    if touched_at is not None:
        attributes["touched_at"] = {"N": str(touched_at)}
    if expires_at is not None:
        attributes["expires_at"] = {"N": str(expires_at)}
        attributes["forget_at"] = {"N": str(expires_at // 1000 + 1)}  # the time to live
    return attributes


def now() -> dict[str, Any]:
    return {":now": {"N": str(clock.now())}}


# What is asked.


@cache
def client() -> Any:
    """Return the client of this process, which threads can share."""
    options = {name: value for name, value in site().items() if name not in ("table", "timeout")}
    seconds = site()["timeout"]
    patience = Config(
        connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 2}
    )
    return boto3.client("dynamodb", config=patience, **options)


@receiver(setting_changed)
def forget(setting: str, **kwargs: Any) -> None:
    if setting == "DYNAMODB_SESSIONS":
        client.cache_clear()


def ask(operation: str, **arguments: Any) -> Any:
    """Raises one of SessionStore.unavailable, Conflict, or another ClientError."""
    if not operation.startswith(("batch", "transact")):
        arguments["TableName"] = table()
    try:
        return getattr(client(), operation)(**arguments)
    except ClientError as error:
        codes = codes_of(error)
        if CONFLICT & codes:
            raise Conflict from error
        if busy := BUSY & codes:
            raise DynamoDBUnavailable(", ".join(busy)) from error
        raise


def codes_of(error: ClientError) -> set[str]:
    """Return what is wrong, also with a part of a transaction."""
    parts = error.response.get("CancellationReasons", ())
    return {error.response["Error"]["Code"], *(part["Code"] for part in parts)}


def done(operation: str, tries: int = 3, **arguments: Any) -> bool:
    """Ask for something that has a condition. Return False if that does not hold."""
    while True:
        tries -= 1
        try:
            ask(operation, **arguments)
        except Conflict:
            if not tries:
                raise
        except ClientError as error:
            if FAILED & codes_of(error):
                return False
            raise
        else:
            return True


def update(digest: str, expected: bytes | None, changes: dict[str, Any], tries: int = 3) -> bool:
    given = now() | {f":{name}": value for name, value in changes.items()}
    if expected is not None:
        given[":expected"] = {"B": expected}
    return done(
        "update_item",
        tries,
        Key=key(digest),
        UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in changes),
        ConditionExpression=ALIVE if expected is None else SAME,
        ExpressionAttributeValues=given,
    )


def batches(digests: Collection[str], size: int) -> Iterator[list[str]]:
    """DynamoDB takes so many at once, and none of them twice."""
    left = iter(set(digests))
    while some := list(islice(left, size)):
        yield some

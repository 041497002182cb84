"""
A log generator: a year of a person, as the sign-ins of two devices with the addresses, user agents
and cookies that they had. Everything follows from the seed.

The person works in an office on most weekdays, and has a connection at home and a telephone. Their
providers give out addresses as real ones do: at home for a day, a week or for good, out of one to
three ranges of IPv4, and often of IPv6, too; on the way for a day, out of two to eight ranges.
Browsers are updated every month. In two nights of the year somebody clears the cookies of one of
the devices. Two weeks are spent on a trip, with three hotels and roaming, and two to four weeks
nobody uses anything.

The registry is as the purge leaves it: a session ends after two weeks without use, and its row goes
thirty days after it has ended.

FOUND is what this prints, after some minutes:

    python manage.py shell -c "from collections import Counter; from tests.years import *
    print(Counter(false_alarms(seed) for seed in range(1000)))"
"""

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from django_sessionkit.models import Novelty, UserSession, uuid7
from django_sessionkit.novelty import network_of, networks_of, what_is_new
from django_sessionkit.registry import ENOUGH, ROOM

DAYS = 365
LIFE, RETENTION = 14, 30  # days
FIRST = datetime(2026, 1, 1, tzinfo=UTC)

LAPTOP = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/{}.0.0.0 Safari/537.36"
)
TELEPHONE = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/{}.0.0.0 Mobile Safari/537.36"
)


# Of 1,000 years: how many had no false alarm, and how many had one. None had more.
FOUND = (913, 87)


class SignIn(NamedTuple):
    """A sign-in, what the registry has of its user before, and whether the device was there."""

    row: UserSession
    before: list[UserSession]
    is_first: bool  # of this device
    thief: UserSession  # who signs in from elsewhere at this moment, with the same user agent


class Network:
    """Where addresses of one provider come from, in one place."""

    def __init__(self, chance: random.Random, ranges: int, newer: float, days: int) -> None:
        self.chance, self.newer, self.days = chance, newer, days
        self.ranges = [chance.randrange(1 << 24, 223 << 24) >> 16 for _ in range(ranges)]
        self.range_of_ipv6 = 0x2A00_0000 + chance.getrandbits(24)
        self.since = -DAYS

    def address(self, day: int) -> str:
        chance = self.chance
        if day - self.since >= self.days:
            self.since = day
            older = chance.choice(self.ranges) << 16 | chance.getrandbits(16)
            newer = self.range_of_ipv6 << 96 | chance.getrandbits(32) << 64 | chance.getrandbits(64)
            self.addresses = str(IPv4Address(older)), str(IPv6Address(newer))
        return self.addresses[chance.random() < self.newer]


class Device:
    def __init__(self, user_agent: str) -> None:
        self.user_agent = user_agent
        self.is_new = True
        self.clear_cookies()

    def clear_cookies(self) -> None:
        self.browser: uuid.UUID | None = None
        self.session: UserSession | None = None


class Person:
    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)  # noqa: S311
        days = chance.choice([1, 1, 2, 3]), chance.choice([0, 0.8]), chance.choice([1, 7, DAYS])
        self.home = Network(chance, *days)
        self.office = Network(chance, 1, chance.choice([0, 0, 0.8]), DAYS)
        self.mobile = Network(chance, chance.choice([2, 4, 8]), chance.choice([0, 0.8]), 1)
        self.hotels = [Network(chance, 2, 0.3, 2) for _ in range(3)]
        self.roaming = Network(chance, 4, 0.5, 1)
        self.elsewhere = Network(chance, 1, 0.5, 1)
        # How long somebody is signed in: as long as there is no reason why not, until they sign out
        # after each visit, or until the browser is closed.
        self.habit = chance.choice(["stays", "stays", "signs out", "closes"])
        trip, holiday = chance.randrange(20, 330), chance.randrange(20, 320)
        self.trip = range(trip, trip + 14)
        self.holiday = range(holiday, holiday + chance.randrange(14, 29))
        self.laptop, self.telephone = Device(LAPTOP), Device(TELEPHONE)
        both = [self.laptop, self.telephone]
        self.cleared = [(chance.randrange(5, DAYS), chance.choice(both)) for _ in range(2)]
        self.rows: list[UserSession] = []

    def year(self) -> Iterator[SignIn]:
        """Yield the sign-ins of a year, one by one."""
        for day in range(DAYS):
            for night, device in self.cleared:
                if night == day:
                    device.clear_cookies()
            if day in self.holiday:
                continue
            for device in (self.laptop, self.telephone):
                often = 0.8 if device is self.telephone or is_weekday(day) else 0.4
                if self.chance.random() > often:
                    continue
                for _ in range(self.chance.choice([1, 1, 2])):
                    yield from self.visit(device, day)

    def visit(self, device: Device, day: int) -> Iterator[SignIn]:
        address, now = self.network(device, day).address(day), FIRST + timedelta(days=day)
        purge(self.rows, now)
        session = device.session
        if session is None or session.ended_at:
            user_agent = device.user_agent.format(156 + day // 30)
            before = compared(self.rows, device.browser)
            device.browser = device.browser or uuid.UUID(int=self.chance.getrandbits(128))
            session = signed_in(now, device.browser, user_agent, address)
            thief = uuid.UUID(int=self.chance.getrandbits(128))
            stranger = signed_in(now, thief, user_agent, self.elsewhere.address(day))
            yield SignIn(session, before, device.is_new, stranger)
            self.rows.append(session)
            device.session, device.is_new = session, False
        use(session, now, address)
        if self.habit == "signs out":
            session.ended_at = now
        elif self.habit == "closes" and self.chance.random() < 0.5:
            device.session = None

    def network(self, device: Device, day: int) -> Network:
        is_out = self.chance.random() < 0.5
        if day in self.trip:
            roams = device is self.telephone and is_out
            return self.roaming if roams else self.chance.choice(self.hotels)
        if device is self.telephone:
            return self.mobile if is_out else self.home
        return self.office if is_weekday(day) and is_out else self.home


def is_weekday(day: int) -> bool:
    return day % 7 < 5


def false_alarms(seed: int) -> int:
    """
    Return how often somebody was told of a new device that was none, in the year of this seed. See
    that they were told of the second device, and of every thief.
    """
    count = devices = 0
    for sign_in in Person(seed).year():
        new = what_is_new(sign_in.row, sign_in.before)
        if not sign_in.before:
            assert new == ""  # the first sign-in of the account
            continue
        if sign_in.is_first:
            assert new == Novelty.DEVICE
            devices += 1
        else:
            count += new == Novelty.DEVICE
        assert what_is_new(sign_in.thief, sign_in.before) == Novelty.DEVICE
    assert devices == 1
    return count


def signed_in(now: datetime, browser: uuid.UUID, user_agent: str, address: str) -> UserSession:
    handle = uuid7(int(now.timestamp()) * 1_000_000_000)
    row = UserSession(pk=handle, browser=browser, user_agent=user_agent, ip=address)
    row.last_seen_at, row.networks = now, networks_of(address)
    return row


def use(row: UserSession, now: datetime, address: str) -> None:
    """Do what registry.touch() does."""
    row.last_seen_at, row.ip, network = now, address, network_of(address)
    if network not in row.networks.split(","):
        row.networks = f"{network},{row.networks}"[:ROOM]


def purge(rows: list[UserSession], now: datetime) -> None:
    for row in rows:
        if row.ended_at is None and now - row.last_seen_at > timedelta(days=LIFE):
            row.ended_at = row.last_seen_at + timedelta(days=LIFE)
    kept_from = now - timedelta(days=RETENTION)
    rows[:] = [row for row in rows if row.ended_at is None or row.ended_at >= kept_from]


def compared(rows: list[UserSession], browser: uuid.UUID | None) -> list[UserSession]:
    """Return what registry.enter() reads of them."""
    newest = sorted(rows, key=lambda row: (row.last_seen_at, row.pk), reverse=True)
    newest.sort(key=lambda row: row.browser != browser)
    return newest[:ENOUGH]

"""
Three requests work on one session, in any order. What each of them sees, and what is stored, is
what a model of a few lines says.
"""

import copy
import json
from collections.abc import Sequence
from itertools import cycle
from typing import Any, NamedTuple
from unittest import mock

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import UpdateError
from django.db import OperationalError
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from django_sessionkit.exceptions import StoreUnavailable
from django_sessionkit.models import UserSession
from tests import store
from tests.calls import hand_made
from tests.store import SessionStore

pytestmark = pytest.mark.django_db

NAMES = "abc"


def text(value: Any) -> str:
    """Tell 1 from True."""
    return json.dumps(value, sort_keys=True)


# The model.


class Site:
    """What is stored of the session, and under which key."""

    def __init__(self, stored: dict[str, Any]) -> None:
        self.stored = stored
        self.key = 0
        self.ended = False


class Visit:
    """A request: what its view sees, and what the session was when they last agreed."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.view, self.was = copy.deepcopy(site.stored), copy.deepcopy(site.stored)
        self.key = site.key

    @property
    def has_ended(self) -> bool:
        return self.site.ended or self.key != self.site.key

    def meet(self) -> None:
        """A name that the view has changed stays; every other name follows what is stored."""
        for name in NAMES:
            if text(self.view.get(name, "-")) != text(self.was.get(name, "-")):
                continue
            for mine in (self.view, self.was):
                mine.pop(name, None)
                if name in self.site.stored:
                    mine[name] = copy.deepcopy(self.site.stored[name])

    def save(self) -> None:
        self.meet()
        self.site.stored, self.was = copy.deepcopy(self.view), copy.deepcopy(self.view)

    def cycle_key(self) -> None:
        self.save()
        self.site.key += 1
        self.key = self.site.key


# The scripts. Few names and few values, so that requests meet.

NUMBERS = st.integers(0, 2)
LEAVES = st.sampled_from([None, True, 1, 1.0, "x"])
VALUES = st.recursive(
    st.lists(LEAVES, max_size=2) | st.dictionaries(st.sampled_from("xy"), LEAVES, max_size=2),
    lambda values: (
        st.lists(values, max_size=2) | st.dictionaries(st.sampled_from("xy"), values, max_size=2)
    ),
    max_leaves=3,
)
NAME = st.sampled_from(NAMES)
CHANGES = st.tuples(st.just("change"), NAME, st.lists(NUMBERS, max_size=2), NUMBERS)
USES = st.one_of(
    CHANGES,
    CHANGES,
    st.tuples(st.just("set"), NAME, LEAVES | VALUES),
    st.tuples(st.just("delete"), NAME),
    st.tuples(st.just("read"), NAME),
)


class Step(NamedTuple):
    """What a request does: it uses its session, and then, maybe, writes it."""

    who: int
    uses: list[tuple[Any, ...]]
    how: str | None = "save"
    # What the two others write before each attempt of a save. At last the store may fail.
    others: Sequence[tuple[Any, ...]] = ()
    fails: bool = False


STEPS = st.builds(
    Step,
    st.integers(0, 2),
    st.lists(USES, max_size=2),
    st.sampled_from([None, None, *["save"] * 6, "cycle_key"]),
    st.lists(USES, max_size=3),
    st.sampled_from([False, False, True]),
)


class Place(NamedTuple):
    """A value that a view holds, and what stands in it."""

    held: Any
    text: str
    inner: dict[Any, "Place"]


def places(value: Any) -> Place:
    inner = value if isinstance(value, dict) else {}
    if isinstance(value, list):
        inner = dict(enumerate(value))
    return Place(value, text(value), {name: places(item) for name, item in inner.items()})


def check_is_held(value: Any, place: Place) -> None:
    """Check that what is of the same type as before is the same object."""
    if isinstance(value, dict) and isinstance(place.held, dict):
        assert value is place.held
        for name in place.inner.keys() & value.keys():
            check_is_held(value[name], place.inner[name])
    elif isinstance(value, list) and isinstance(place.held, list):
        assert value is place.held
        if text(value) == place.text:
            for index, item in enumerate(value):
                check_is_held(item, place.inner[index])


def change(value: Any, path: list[int], number: int) -> None:
    """Change a value in place, somewhere inside."""
    for step in path:
        items = value if isinstance(value, list) else []
        if isinstance(value, dict):
            items = [value[name] for name in sorted(value)]
        if items := [item for item in items if isinstance(item, dict | list)]:
            value = items[step % len(items)]
    if number == 0 and isinstance(value, dict | list):
        value.clear()
    elif isinstance(value, dict):
        value["xy"[number - 1]] = number
    elif isinstance(value, list):
        value.append(number)


class Story:
    """The requests, each beside its model."""

    def __init__(self, is_async: bool, begin: dict[str, Any]) -> None:
        self.is_async = is_async
        user, _ = get_user_model().objects.get_or_create(username="alice")
        session = hand_made(user)
        session.update(begin)
        session.save()
        self.site, self.key = Site(begin), session.session_key
        self.visits = [self.visit() for _ in range(3)]

    def visit(self) -> tuple[Any, Visit]:
        session = SessionStore(self.key)
        self.drive(session, "get", SESSION_KEY)
        return session, Visit(self.site)

    def drive(self, session: Any, name: str, *args: Any) -> Any:
        if self.is_async:
            return async_to_sync(getattr(session, f"a{name}"))(*args)
        return getattr(session, name)(*args)

    def act(self, step: Step) -> None:
        session, model = self.visits[step.who]
        for use in step.uses:
            self.use(session, model, *use)
        self.check(model, session)
        self.held = places(session._session)
        if model.has_ended:
            if step.how:
                with pytest.raises(UpdateError):
                    self.drive(session, step.how)
            if not self.site.ended:
                self.visits[step.who] = self.visit()
        elif step.how == "cycle_key":
            self.drive(session, "cycle_key")
            model.cycle_key()
            self.key = session.session_key
        elif step.how and (step.others or step.fails):
            self.save_among(session, model, step)
        elif step.how:
            self.drive(session, "save")
            model.save()
        for other, its_model in self.visits:
            self.check(its_model, other)
        check_is_held(session._session, self.held)

    def check(self, model: Visit, session: Any) -> None:
        seen = {name: session[name] for name in NAMES if name in session}
        assert text(seen) == text(model.view)

    def use(self, session: Any, model: Visit, what: str, name: str, *args: Any) -> None:
        """Let a view use its session, without saving it."""
        if what == "read":
            assert text(self.drive(session, "get", name)) == text(model.view.get(name))
        for mine in (session, model.view):
            match what, *args:
                case "set", value:
                    mine[name] = copy.deepcopy(value)
                case ("delete",):
                    mine.pop(name, None)
                case "change", path, number:
                    change(mine.get(name), path, number)

    def save_among(self, session: Any, model: Visit, step: Step) -> None:
        """Save a session, while others write to it before each attempt. Sync, to come between."""
        left = list(zip(step.others, cycle([1, 2]), strict=False))
        is_own = True
        replace = SessionStore.replace

        def crowded(*args: Any) -> Any:
            nonlocal is_own
            if not is_own:
                return replace(*args)
            # What went and came again in between is another object.
            check_is_held(session._session, self.held)
            self.held = places(session._session)
            if left:
                is_own = False
                use, distance = left.pop()
                theirs, their_model = self.visits[(step.who + distance) % 3]
                if not their_model.has_ended:
                    self.use(theirs, their_model, *use)
                    theirs.save()
                    their_model.save()
                is_own = True
            elif step.fails:
                raise OperationalError("no route to host")
            if done := replace(*args):
                left.clear()
            else:
                model.meet()
            return done

        with mock.patch.object(SessionStore, "replace", staticmethod(crowded)):
            try:
                session.save()
            except StoreUnavailable:
                assert step.fails
            else:
                model.save()


@settings(
    max_examples=60,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    st.booleans(),
    st.dictionaries(NAME, VALUES, min_size=2),
    st.lists(STEPS, min_size=6, max_size=20),
    st.lists(STEPS, max_size=3),
)
@example(
    False,
    {"a": {"x": 0}, "b": []},
    [
        Step(0, [], others=[("change", "b", [], 1)]),
        Step(0, [("change", "a", [], 1)]),
        Step(0, [("change", "a", [], 2)]),
    ],
    [],
)
def test_requests_on_one_session_see_and_store_what_the_model_says(
    is_async: bool, begin: dict[str, Any], script: list[Step], revoked: list[Step]
):
    """``revoked``: what the requests still try when the session was revoked."""
    story = Story(is_async, begin)
    for step in script:
        story.act(step)
    loaded = SessionStore(story.key).load()
    stored = {name: loaded[name] for name in NAMES if name in loaded}
    assert text(stored) == text(story.site.stored)
    assert UserSession.objects.active().count() == 1
    story.drive(UserSession.objects.all(), "revoke")
    story.site.ended = True
    for step in revoked:
        story.act(step)
    assert SessionStore(story.key).load() == {}
    assert not store.payloads()

"""
Two requests write to one session. What the other one has written is put into the dictionary that
this one's view holds. The dictionary, and the values that the view has taken out of it, stay the
same objects, for the view may go on to change them.
"""

import json
from collections.abc import Sequence
from typing import Any, cast

from django_sessionkit.backends.facts import Facts
from django_sessionkit.backends.flows import Flow
from django_sessionkit.backends.loading import Loading
from django_sessionkit.backends.records import Data, Found, Record, opened
from django_sessionkit.backends.sealing import SessionKey
from django_sessionkit.backends.serializing import Serializer, dump, load

ABSENT = object()


class Merging(Loading):
    def _merged(self, key: SessionKey, base: Record, facts: Facts) -> Flow[tuple[Record, Facts]]:
        """
        Put what another request has written since ``base``, under this key or a new one, into our
        dictionary. Return what is stored now, and our facts merged into that. Raises UpdateError if
        the session has ended.

        From here on the session knows what is stored, for our own write may fail: then the next one
        must not take for a change of the view's what was merged.
        """
        found = yield from self._resolve(key, again=True)
        if not isinstance(found, Found):
            raise self._ended(found)
        theirs = found.record
        was_facts, was = self._opened(base)
        if not self._replaces_all:
            changed = put(found.data, self._session_cache, was, self.serializer)
            # Opened once more, for the view may change what was put into its dictionary.
            _, data = self._opened(theirs)
            # What the view has changed stays a change, whoever else writes before it is stored.
            for name in changed:
                data.pop(name, None)
            kept = {name: was[name] for name in changed & was.keys()}
            theirs = theirs._replace(base=data | kept)
        if theirs.key != base.key:
            self.has_new_key, self._session_key = True, theirs.key
            came_by = found.came_by or self._came_by or base.digest
            self._note_the_way(found._replace(came_by=came_by))
        self._record = theirs._replace(facts=self._facts.merged(was_facts, theirs.facts))
        return theirs, facts.merged(was_facts, theirs.facts)

    def _opened(self, record: Record) -> tuple[Facts, Data]:
        """Return the facts in a payload, and the dictionary to tell the view's changes by."""
        # It was opened once before.
        contents = opened(record.payload, record.key, self.serializer)
        facts, data = cast("tuple[Facts, Data]", contents)
        return facts, data if record.base is None else record.base


def put(theirs: Data, session: Data, was: Data, serializer: type[Serializer]) -> set[Any]:
    """
    Put ``theirs`` into the dictionary of a session, except for the names that the view has changed
    or removed since the session ``was`` loaded. Return these names.

    Values are compared as the serializer says them, so that a change deep inside of one counts, and
    the list that JSON makes of a tuple does not.
    """
    mine = load(*dump(session, serializer), serializer)
    names = was.keys() | mine.keys()
    changed = {name for name in names if not same(was.get(name, ABSENT), mine.get(name, ABSENT))}
    shared = shared_in(session)
    for key in list(session):
        name = stored_name(key, mine)
        if name in changed or name not in mine:
            continue
        if name in theirs:
            session[key] = follow(session[key], mine[name], theirs[name], shared)
        else:
            del session[key]
    for name in theirs.keys() - names:
        session[name] = theirs[name]
    return changed


def follow(own: Any, said: Any, theirs: Any, shared: set[int]) -> Any:
    """
    Change a value in place, until it says what another request has stored. Return the value, or
    what has to take its place. ``said``: the value, as the serializer says it.
    """
    if same(said, theirs):
        return own
    if type(said) is not type(theirs) or id(own) in shared:
        return theirs
    if isinstance(said, dict) and isinstance(own, dict):
        before = {stored_name(key, said): (key, value) for key, value in own.items()}
        own.clear()
        for name, value in theirs.items():
            key, item = before.get(name, (name, value))
            own[key] = follow(item, said.get(name, value), value, shared)
        return own
    if isinstance(said, list | tuple) and isinstance(own, list | tuple):
        items = _items(own, said, theirs, shared)
        if isinstance(own, tuple):
            return tuple(items)
        own[:] = items
        return own
    return theirs


def _items(
    own: Sequence[Any], said: Sequence[Any], theirs: Sequence[Any], shared: set[int]
) -> list[Any]:
    """Return ``theirs``, where an item that is still there is the same object, also if it moved."""
    # Text, because not every item can be a key. It tells 1 from True.
    was, now = [repr(item) for item in said], [repr(item) for item in theirs]
    differ = [(one, other) for one, other in zip(was, now, strict=False) if one != other]
    if len(was) == len(now) and not {one for one, _ in differ} & {other for _, other in differ}:
        return [follow(*item, shared) for item in zip(own, said, theirs, strict=True)]
    left: dict[str, list[Any]] = {}
    for text, item in zip(was, own, strict=True):
        left.setdefault(text, []).append(item)
    return [
        left[text].pop(0) if left.get(text) else item
        for text, item in zip(now, theirs, strict=True)
    ]


def shared_in(session: Data) -> set[int]:
    """
    Return the ids of the dictionaries and lists that stand in several places of a session. If one
    place follows another request, the others must not change.
    """
    seen: set[int] = set()
    shared: set[int] = set()
    left: list[Any] = [*session.values()]
    while left:
        value = left.pop()
        if isinstance(value, tuple):
            left += value
        elif isinstance(value, dict | list):
            if id(value) in seen:
                shared.add(id(value))
                continue
            seen.add(id(value))
            left += value.values() if isinstance(value, dict) else value
    return shared


def stored_name(key: Any, said: Data) -> Any:
    """Return the name that a key of the view has in what the serializer says: JSON makes text."""
    if key in said:
        return key
    return next(iter(json.loads(json.dumps({key: None}, skipkeys=True))), key)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are stored as the same: 1 is not True, and NaN is NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(map(same, one.values(), map(other.get, one)))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or repr(one) == repr(other)

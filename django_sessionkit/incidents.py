"""
What happened in this process that no row tells, counted until tallies.write_incidents() writes it
down: an event may come with every request, and must not cost each of them a write.
"""

from collections import Counter
from threading import Lock

UNOPENED = "unopened"  # a stored session that does not open
MOVED = "moved"  # a session that is used with another browser or network
REFUSED = "refused"  # a sign-in that Policy.limit refuses
INCIDENTS = (UNOPENED, MOVED, REFUSED)

_counts: Counter[str] = Counter()
_lock = Lock()


def note(name: str, number: int = 1) -> None:
    """Count what has happened: ``name`` is one of INCIDENTS."""
    with _lock:
        _counts[name] += number


def take() -> Counter[str]:
    """Return what was counted since the last call."""
    if not _counts:  # nearly always, and this is asked at the end of every request
        return Counter()
    with _lock:
        taken = Counter(_counts)
        _counts.clear()
    return taken

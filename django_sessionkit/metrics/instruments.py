"""
What sessions do, in figures, by the API of OpenTelemetry. The site's SDK sends them on; without an
SDK, nobody counts. No attribute names a user, a session or an address.
"""

from collections.abc import Callable, Mapping
from typing import Any

from django.dispatch import Signal
from opentelemetry.metrics import get_meter

from django_sessionkit.signals import (
    purge_finished,
    session_key_reused,
    session_renewed,
    session_started,
    sessions_ended,
    sign_in_refused,
)

meter = get_meter("django_sessionkit")

started = meter.create_counter("sessionkit.sessions.started", "{session}", "Sign-ins.")
renewed = meter.create_counter(
    "sessionkit.sessions.renewed", "{session}", "Sessions that got a new key by themselves."
)
ended = meter.create_counter(
    "sessionkit.sessions.ended", "{session}", "Sessions that ended, by reason."
)
reused = meter.create_counter(
    "sessionkit.keys.reused", "{key}", "Renewed keys that were used after their grace."
)
refused = meter.create_counter(
    "sessionkit.sign_ins.refused", "{sign_in}", "Sign-ins that were over the limit."
)
purged = meter.create_counter(
    "sessionkit.purge.rows", "{row}", "Rows that a purge did something with, by what it did."
)
durations = meter.create_histogram("sessionkit.purge.duration", "s", "How long a purge took.")


def count_start(novelty: str, **kwargs: Any) -> None:
    started.add(1, {"novelty": novelty or "none"})


def count_renewal(**kwargs: Any) -> None:
    renewed.add(1)


def count_ends(handles: list[Any], reason: str, **kwargs: Any) -> None:
    ended.add(len(handles), {"reason": str(reason)})


def count_reuse(**kwargs: Any) -> None:
    reused.add(1)


def count_refusal(**kwargs: Any) -> None:
    refused.add(1)


def count_purge(figures: Mapping[str, int], seconds: float, **kwargs: Any) -> None:
    for name, number in figures.items():
        purged.add(number, {"done": name})
    durations.record(seconds)


RECEIVERS: dict[Signal, Callable[..., None]] = {
    session_started: count_start,
    session_renewed: count_renewal,
    sessions_ended: count_ends,
    session_key_reused: count_reuse,
    sign_in_refused: count_refusal,
    purge_finished: count_purge,
}


def listen() -> None:
    """Count from now on. To say so twice counts nothing twice."""
    for signal, receiver in RECEIVERS.items():
        signal.connect(receiver, dispatch_uid="django_sessionkit.metrics")

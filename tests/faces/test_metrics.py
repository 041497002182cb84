"""What sessions do, in figures, as the SDK of OpenTelemetry reads them."""

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from opentelemetry import metrics
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from django_sessionkit.checks import METRICS
from django_sessionkit.metrics import instruments
from django_sessionkit.models import EndReason, PurgeRun, UserSession
from django_sessionkit.signals import purge_finished, session_key_reused, sign_in_refused
from tests.documents import section
from tests.people import key_of, sign_in
from tests.renewals import AFTER, GRACE, renewed
from tests.store import SessionStore

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]

Figures = dict[tuple[Any, ...], float]


@pytest.fixture(scope="module")
def reader() -> InMemoryMetricReader:
    """The site's SDK, which is set up after the instruments, as many sites do."""
    since_the_last_time = AggregationTemporality.DELTA
    reader = InMemoryMetricReader(
        preferred_temporality={Counter: since_the_last_time, Histogram: since_the_last_time}
    )
    metrics.set_meter_provider(MeterProvider([reader]))
    return reader


@pytest.fixture
def figures(reader: InMemoryMetricReader, settings: Any) -> Iterator[Callable[[], Figures]]:
    """A function that returns what was counted since it was called last."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, METRICS]
    yield lambda: dict(points(reader))
    for signal in instruments.RECEIVERS:
        assert signal.disconnect(dispatch_uid="django_sessionkit.metrics")


def points(reader: InMemoryMetricReader) -> Iterator[tuple[tuple[Any, ...], float]]:
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            assert scope.scope.name == "django_sessionkit"
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    value = point.count if hasattr(point, "count") else point.value
                    yield (metric.name, *(point.attributes or {}).values()), value


def test_sessions_are_counted_from_the_sign_in_to_the_purge(
    figures: Callable[[], Figures], alice: User, policy: Callable[..., None]
):
    policy(renew_after=AFTER, renew_grace=GRACE)
    laptop, phone, _tablet = sign_in(alice), sign_in(alice), sign_in(alice)
    assert figures() == {("sessionkit.sessions.started", "none"): 3}
    renewed(laptop)
    assert figures() == {("sessionkit.sessions.renewed",): 1}
    phone.logout()
    UserSession.objects.revoke(EndReason.REVOKED_BY_STAFF)
    assert figures() == {
        ("sessionkit.sessions.ended", "logout"): 1,
        ("sessionkit.sessions.ended", "revoked_by_staff"): 2,
    }
    SessionStore.clear_expired()
    found = figures()
    assert found[("sessionkit.purge.duration",)] == 1
    assert found["sessionkit.purge.rows", "deleted"] == 0
    call_command("purgesessions", dry_run=True, verbosity=0)
    assert figures() == {}


def test_what_happens_seldom_is_counted_too(figures: Callable[[], Figures], alice: User):
    session_key_reused.send(UserSession, handle=None, client=None)
    sign_in_refused.send(UserSession, user=alice, limit=3)
    purge_finished.send(PurgeRun, figures={"expired": 40}, seconds=20.5)
    assert figures() == {
        ("sessionkit.keys.reused",): 1,
        ("sessionkit.sign_ins.refused",): 1,
        ("sessionkit.purge.rows", "expired"): 40,
        ("sessionkit.purge.duration",): 1,
    }


def test_no_figure_names_a_user_or_a_session(
    reader: InMemoryMetricReader, figures: Callable[[], Figures], alice: User
):
    browser = sign_in(alice)
    row, key = UserSession.objects.get(), key_of(browser)
    browser.logout()
    data = reader.get_metrics_data()
    assert data
    text = data.to_json()
    assert "sessionkit.sessions.ended" in text
    for secret in ("alice", str(row.pk), row.pk.hex, key, row.digest, "127.0.0.1"):
        assert secret not in text


def test_every_instrument_is_in_the_docs(figures: Callable[[], Figures]):
    names = {
        vars(each)["_name"]
        for each in vars(instruments).values()
        if isinstance(each, metrics.Instrument)
    }
    assert len(names) == 7
    assert {
        name for name in names if f"| `{name}` |" in section("docs/operations.md", "Metrics")
    } == names


def test_site_that_lacks_the_library_counts_nothing(settings: Any):
    with mock.patch("django_sessionkit.metrics.apps.find_spec", return_value=None):
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, METRICS]
    assert not purge_finished.has_listeners()


def test_nothing_is_counted_twice(figures: Callable[[], Figures], settings: Any):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS]  # every app is made ready again
    purge_finished.send(PurgeRun, figures={"expired": 40}, seconds=20.5)
    assert figures()["sessionkit.purge.rows", "expired"] == 40

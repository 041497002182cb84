from importlib.util import find_spec

from django.apps import AppConfig


class MetricsConfig(AppConfig):
    """Counts what sessions do: see instruments.py."""

    name = "django_sessionkit.metrics"
    label = "sessionkit_metrics"

    def ready(self) -> None:
        if find_spec("opentelemetry"):  # otherwise a system check says what to install
            from django_sessionkit.metrics import instruments

            instruments.listen()

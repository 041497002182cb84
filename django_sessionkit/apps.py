from django.apps import AppConfig
from django.core.checks import Tags, register
from django.utils.translation import gettext_lazy as _


class SessionKitConfig(AppConfig):
    name = "django_sessionkit"
    verbose_name = _("Sessions")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django_sessionkit import checks, notices, receivers  # noqa: F401

        register(checks.check_settings)
        register(checks.check_deployment, Tags.security, deploy=True)

"""The suites of other packages that ``make test-others`` runs, and what is known to differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PINS = Path(__file__).parent / "requirements.txt"


class Suite(NamedTuple):
    name: str
    """The name of the package, as in requirements.txt."""
    settings: str
    """The module of its settings; "": the suite configures Django itself."""
    tests: Sequence[str]
    """What pytest is given."""
    at_least: int
    """So many tests pass with Django's sessions: with fewer, something is wrong with the suite."""
    path: Sequence[str] = (".",)
    """What is to be imported from the sdist."""
    options: Sequence[str] = ()
    differences: Mapping[str, Sequence[str]] = {}
    """Why tests differ, and which. The same is in docs/compatibility.md."""

    @property
    def pin(self) -> str:
        (pin,) = [p for p in PINS.read_text().split("\n") if p.startswith(f"{self.name}==")]
        return pin

    @property
    def known(self) -> list[str]:
        """The tests that are known to differ."""
        return [test for tests in self.differences.values() for test in tests]


# Django's own runner, for which some suites are, takes only test cases for tests.
CASES = ["-o", "python_functions=-", "-o", "python_classes=-"]

# Why a test differs, in the words of docs/compatibility.md.
NEW_PASSWORD = (
    "A new password ends the user's sessions when it is saved, but for the session of the request."
    " Django refuses them later, so code that is in no request can write the new hash into one."
)
CHECKS = (
    "The tests expect no system check but theirs. Ours finds that their site has no page at"
    " LOGIN_URL (sessionkit.W015)."
)

# In the order in which they begin: the slowest first. Not here, because their sdists lack tests, or
# what the tests need: channels, django-guest-user, django-hijack, django-invitations,
# django-lockdown, django-maintenance-mode, django-oauth-toolkit, django-oscar, django-rest-knox,
# django-two-factor-auth, djoser.
SUITES = [
    Suite(
        "wagtail",
        "wagtail.test.settings",
        [
            "wagtail/users/tests",
            "wagtail/tests/test_page_privacy.py",
            *(
                f"wagtail/admin/tests/{name}.py"
                for name in (
                    "test_account_management",
                    "test_editing_sessions",
                    "test_dismissibles",
                    "test_messages",
                    "test_password_reset",
                    "test_privacy",
                    "test_views",
                    "tests",
                )
            ),
        ],
        400,
    ),
    Suite(
        "django-session-security",
        "sessionkit_sites.session_security",
        ["session_security", "--ignore=session_security/tests/test_script.py"],  # in a browser
        9,
    ),
    Suite(
        "django-allauth",
        "tests.projects.regular.settings",
        [
            "tests/apps/account",
            "tests/apps/headless",
            "tests/apps/idp",
            "tests/apps/mfa",
            "tests/apps/socialaccount/internal",
            "tests/apps/usersessions",
        ],
        1296,
        differences={
            NEW_PASSWORD: [
                "tests/apps/headless/contrib/ninja/test_security.py::test_anonymous_authentication_allows_stale_session_auth_hash[app]",
                "tests/apps/headless/contrib/ninja/test_security.py::test_authenticate_survives_session_auth_hash_update[app]",
                "tests/apps/headless/contrib/rest_framework/test_authentication.py::test_authenticate_rejects_anonymous_user_when_not_allowed[app]",
                "tests/apps/headless/contrib/rest_framework/test_authentication.py::test_authenticate_survives_session_auth_hash_update[app]",
                "tests/apps/headless/tokens/test_jwttokenstrategy.py::test_stateful_access_token_survives_session_auth_hash_update[app]",
            ],
        },
    ),
    Suite(
        "django-axes",
        "tests.settings",
        ["tests"],
        351,
        differences={
            CHECKS: [
                "tests/test_checks.py::BackendCheckTestCase::test_backend_missing",
                "tests/test_checks.py::BackendCheckTestCase::test_specialized_backend",
                "tests/test_checks.py::CacheCheckTestCase::test_cache_check",
                "tests/test_checks.py::CacheCheckTestCase::test_cache_check_does_not_produce_check_warnings_with_database_handler",
                "tests/test_checks.py::CacheCheckTestCase::test_cache_check_warnings",
                "tests/test_checks.py::ConfCheckTestCase::test_invalid_import_path",
                "tests/test_checks.py::ConfCheckTestCase::test_missing_settings_no_error",
                "tests/test_checks.py::ConfCheckTestCase::test_valid_callable",
                "tests/test_checks.py::DeprecatedSettingsTestCase::test_deprecated_success_access_log_flag",
                "tests/test_checks.py::LockoutParametersCheckTestCase::test_invalid_configuration",
                "tests/test_checks.py::LockoutParametersCheckTestCase::test_valid_configuration",
                "tests/test_checks.py::MiddlewareCheckTestCase::test_cache_check_warnings",
            ],
        },
    ),
    Suite("social-auth-app-django", "tests.settings", ["tests"], 299),
    Suite(
        "dj-rest-auth",
        "tests.settings",
        ["dj_rest_auth/tests"],
        108,
        path=[".", "dj_rest_auth"],
    ),
    Suite("django-cas-ng", "sessionkit_sites.cas_ng", ["tests"], 62),
    Suite(
        "django-debug-toolbar",
        "tests.settings",
        [
            "tests/test_integration.py",  # first: it finds the URLs of the toolbar
            "tests/test_decorators.py",
            "tests/test_middleware.py",
            "tests/test_store.py",
            "tests/panels/test_history.py",
            "tests/panels/test_request.py",
        ],
        144,
        options=CASES,
    ),
    Suite("django-formtools", "tests.settings", ["tests"], 100, options=CASES),
    Suite("django-impersonate", "sessionkit_sites.impersonate", ["impersonate"], 42, options=CASES),
    Suite("django-loginas", "loginas.tests.settings", ["loginas/tests"], 21),
    Suite("django-otp", "test_project.settings", ["src"], 166, path=["src", "test"]),
    Suite(
        "django-webtest",
        "settings",
        ["django_webtest_tests"],
        63,
        path=["django_webtest_tests", "."],
    ),
    Suite(
        "djangorestframework",
        "",
        [
            "tests/authentication",
            "tests/browsable_api",
            "tests/test_atomic_requests.py",
            "tests/test_middleware.py",
            "tests/test_permissions.py",
            "tests/test_request.py",
            "tests/test_testing.py",
            "tests/test_throttling.py",
        ],
        221,
    ),
    Suite("mozilla-django-oidc", "sessionkit_sites.oidc", ["tests"], 111),
]

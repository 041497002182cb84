"""
The pages need nothing that a strict Content-Security-Policy forbids. The site of all these tests
sends one, and here from Django 6.0 on it is Django's own middleware that does.
"""

from collections.abc import Callable
from typing import Any

import django
import pytest
from playwright.sync_api import Page

if django.VERSION >= (6, 0):

    @pytest.fixture
    def content_policy(settings: Any) -> None:
        middleware = "django.middleware.csp.ContentSecurityPolicyMiddleware"
        settings.MIDDLEWARE = [middleware, *settings.MIDDLEWARE]
        nothing, own = ["'none'"], ["'self'"]
        settings.SECURE_CSP = {
            **dict.fromkeys(["default-src", "base-uri", "frame-ancestors"], nothing),
            **dict.fromkeys(["style-src", "img-src", "script-src"], own),
            **dict.fromkeys(["connect-src", "form-action"], own),
        }

    def test_every_page_keeps_to_the_policy(reach: Callable[..., Page]):
        page = reach()
        policy = page.request.get("/login/").headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert page.evaluate("document.styleSheets.length") == 1


def test_what_the_policy_forbids_would_be_heard(
    open_device: Callable[..., Page], troubles: list[str]
):
    page = open_device()
    page.goto("/login/")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">')")
    page.evaluate("fetch('/nothing/').then(answer => answer.text())")
    assert any("Content Security Policy" in trouble for trouble in troubles)
    assert any(trouble.startswith("404 ") for trouble in troubles)
    troubles.clear()

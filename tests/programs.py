"""Programs that talk JSON to the API of the kit, with the session of a browser."""

import json
from typing import Any

from asgiref.sync import async_to_sync

from tests.browsers import SCRIPT, AsgiBrowser

API = "/api/v1/"


def call(
    browser: Any, method: str, path: str, data: Any = None, token: bool = True, **headers: str
) -> Any:
    """
    Send a request to the API, and return the answer. ``path`` is below API, or a whole one. By
    default, the browser has the CSRF token.
    """
    usual = getattr(browser, "usual", {})  # AsyncClient has no other way to have headers
    sent = {**usual, **SCRIPT, **{name.replace("_", "-"): value for name, value in headers.items()}}
    if token and "csrftoken" in browser.cookies:
        sent["x-csrftoken"] = browser.cookies["csrftoken"].value
    body: dict[str, Any] = {}
    if data is not None:
        body = {"data": json.dumps(data), "content_type": "application/json"}
    url = path if path.startswith(("/", "http")) else f"{API}{path}"
    if not isinstance(browser, AsgiBrowser):
        return browser.generic(method, url, headers=sent, **body)

    async def send() -> Any:
        return await browser.generic(method, url, headers=sent, **body)

    return async_to_sync(send)()


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem as RFC 9457 has it, and return what else it says."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert "no-store" in answer["Cache-Control"]
    said: dict[str, Any] = json.loads(answer.content)
    assert said.pop("type") == "about:blank"
    assert (said.pop("status"), said.pop("title")) == (status, answer.reason_phrase)
    assert said.pop("code") == code
    assert said["detail"]
    if status == 401:
        assert answer["WWW-Authenticate"].startswith("Bearer")
    return said

"""Requests as servers hand them to Django, with bytes that no browser would send."""

import asyncio
from collections.abc import Iterable
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler


class Sent(NamedTuple):
    method: str
    path: str  # as it stands in the first line of a request
    query: bytes
    headers: list[tuple[str, bytes]]
    body: bytes = b""


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Return the values of a header, which is named in lower case."""
        return [value for each, value in self.headers if each.lower() == name]


def by_wsgi(sent: Sent) -> Answer:
    """Have Django answer, as a server of WSGI does (PEP 3333)."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": sent.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(sent.path).decode("latin-1"),
        "QUERY_STRING": sent.query.decode("latin-1"),
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_HOST": "testserver",
        "CONTENT_LENGTH": str(len(sent.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(sent.body),
        "wsgi.errors": BytesIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in sent.headers:
        key = name.upper().replace("-", "_")
        key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
        between = "; " if key == "HTTP_COOKIE" else ","
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]}{between}{text}" if key in environ else text
    begun: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_error: Any) -> Any:
        begun.append((status, headers))

    response: Any = WSGIHandler()(environ, start_response)
    try:
        body = b"".join(response)
    finally:
        response.close()
    ((status, headers),) = begun
    return Answer(int(status.partition(" ")[0]), headers, body)


def by_asgi(sent: Sent) -> Answer:
    """Have Django answer, as a server of ASGI does."""
    return async_to_sync(_by_asgi)(sent)


async def _by_asgi(sent: Sent) -> Answer:
    headers: Iterable[tuple[bytes, bytes]] = [
        (b"host", b"testserver"),
        (b"content-length", str(len(sent.body)).encode()),
        *((name.encode(), value) for name, value in sent.headers),
    ]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": sent.method,
        "scheme": "http",
        "path": unquote_to_bytes(sent.path).decode("utf-8", "replace"),
        "raw_path": sent.path.encode(),
        "query_string": sent.query,
        "headers": [*headers],
        "client": ("192.0.2.1", 50123),
        "server": ("testserver", 80),
    }
    left = [{"type": "http.request", "body": sent.body, "more_body": False}]
    events: list[Any] = []

    async def receive() -> Any:
        if not left:
            await asyncio.Event().wait()  # the visitor stays on the line
        return left.pop()

    async def send(event: Any) -> None:
        events.append(event)

    await ASGIHandler()(scope, receive, send)
    begin, *parts = events
    decoded = [(name.decode(), value.decode("latin-1")) for name, value in begin["headers"]]
    return Answer(begin["status"], decoded, b"".join(part.get("body", b"") for part in parts))

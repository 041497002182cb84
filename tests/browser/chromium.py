"""A real browser, and a server for it."""

import contextlib
import os
from collections.abc import Iterator

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.test.testcases import LiveServerThread
from playwright.sync_api import Browser, sync_playwright

from tests import servers

# For pages and what is expected of them, in milliseconds: other legs may keep the machine busy.
TIMEOUT = 60_000
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--font-render-hinting=none",
    "--hide-scrollbars",
    "--no-first-run",
]
if hasattr(os, "geteuid") and os.geteuid() == 0:
    FLAGS.append("--no-sandbox")  # Chromium's sandbox refuses to run as root


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """
    Start Chromium, and yield it. Meanwhile Playwright keeps an event loop in this thread, which
    Django takes for async code.
    """
    name, before = "DJANGO_ALLOW_ASYNC_UNSAFE", os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ[name] = "true"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=servers.chromium_program(), args=FLAGS
            )
            try:
                yield browser
            finally:
                browser.close()
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def served() -> Iterator[str]:
    """Serve the site of this process's settings from a thread, and yield its URL."""
    server = LiveServerThread(servers.HOST, StaticFilesHandler, port=servers.free_port())
    server.daemon = True
    server.start()
    server.is_ready.wait()
    try:
        if server.error:
            raise server.error
        yield f"http://{servers.HOST}:{server.port}"
    finally:
        server.terminate()

"""
The example project over PgBouncer in transaction mode, where all threads of all workers share one
connection to PostgreSQL: whatever a statement leaves behind on its connection is the next one's.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest

from example_project.products import PRODUCTS
from tests import servers
from tests.own_browser import OwnBrowser
from tests.people import FIREFOX
from tests.projects import run_python
from tests.servers import HOST, PROJECT

pytestmark = [pytest.mark.postgresql, pytest.mark.pgbouncer]

GUNICORN = ["-m", "gunicorn", "--workers", "2", "--worker-class", "gthread", "--threads", "4"]
GUNICORN += ["--bind", f"{HOST}:{{port}}", "tests.home.loaded:wsgi"]


def rows(database, columns="end_reason"):
    query = f"SELECT {columns} FROM django_sessionkit_usersession ORDER BY id"  # noqa: S608
    return [value for (value,) in database.execute(query).fetchall()]


@pytest.mark.parametrize("options", [{}, {"server_side_binding": True}])
def test_visitors_over_one_connection_for_all(postgresql, log, options):
    OwnBrowser.keys.clear()
    with ExitStack() as stack:
        env = {
            "DATABASE_URL": stack.enter_context(servers.pgbouncer(postgresql)),
            "DATABASE_OPTIONS": json.dumps(options),
            "DJANGO_SETTINGS_MODULE": "tests.home.served_settings",
        }
        run_python(PROJECT, "manage.py", "demo", "--prepare", env=env)
        database = stack.enter_context(psycopg.connect(postgresql, autocommit=True))
        site = stack.enter_context(servers.serve(GUNICORN, log, env))
        browsers = [stack.enter_context(OwnBrowser(site, FIREFOX)) for _ in range(8)]
        pool = stack.enter_context(ThreadPoolExecutor(len(browsers)))

        def shop(browser, product):
            """Fill a cart, and sign in."""
            page = browser.get(f"/products/{product.slug}/")
            browser.send_form(page, f"/cart/{product.slug}/add/")
            browser.sign_in("alice")
            return browser.get("/where/").json()["here"]

        products = (PRODUCTS * len(browsers))[: len(browsers)]
        answers = list(pool.map(shop, browsers, products))
        assert len({answer["database"] for answer in answers}) == 1  # all share it
        for browser, product in zip(browsers, products, strict=True):
            assert str(product.name) in browser.get("/cart/").text
        assert rows(database) == [""] * len(browsers)

        # All write their activity at once.
        database.execute("UPDATE django_sessionkit_storedsession SET touched_at = 0")
        before = rows(database, "last_seen_at")
        pages = pool.map(lambda browser: browser.get("/account/").url.path, browsers)
        assert set(pages) == {"/account/"}
        assert all(map(lambda old, new: old < new, before, rows(database, "last_seen_at")))

        # One ends all others.
        laptop, *others = browsers
        laptop.submit(laptop.get("/account/sessions/others/end/"))
        for browser in others:
            assert "signed out from another device" in browser.get("/account/").text
        assert laptop.get("/account/").url.path == "/account/"
        assert sorted(rows(database)) == ["", *["revoked"] * len(others)]

        # The purge.
        database.execute(
            "UPDATE django_sessionkit_usersession"
            " SET ended_at = '2020-01-01', expires_at = '2020-01-01'"
        )
        database.execute("UPDATE django_sessionkit_storedsession SET expires_at = 0")
        run_python(PROJECT, "manage.py", "clearsessions", env=env)
        assert rows(database) == []

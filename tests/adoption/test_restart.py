"""
Over HTTP, with the real engines and packages: a hundred clients are signed in, the settings change,
the site is started again, and nobody notices.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import repeat

import httpx
import pytest

from tests import moving, servers
from tests.adoption.serve_site import VISITORS
from tests.browsers import PAGE
from tests.moving import HERE
from tests.own_browser import NO_TLS
from tests.people import FIREFOX
from tests.projects import run_python

USER_SESSIONS = "user_sessions.backends.db"
QSESSIONS = "qsessions.backends.db"
CACHED_QSESSIONS = "qsessions.backends.cached_db"
REDIS_SESSIONS = "redis_sessions.session"
# django-user-sessions uses this, and setuptools of late warn of that.
OLD = "-W", "ignore:pkg_resources is deprecated"

# Where the device of a session is known before it has been used here.
WITH_DEVICES = [USER_SESSIONS, QSESSIONS, CACHED_QSESSIONS]
LISTED = [moving.DATABASE, moving.CACHED_DATABASE, *WITH_DEVICES]
EVERYWHERE = [moving.DATABASE, USER_SESSIONS, QSESSIONS]
ONCE = [moving.CACHE, moving.CACHED_DATABASE, moving.FILES, moving.COOKIES, CACHED_QSESSIONS]
ENGINES = [
    *EVERYWHERE,
    *(pytest.param(engine, marks=pytest.mark.once) for engine in ONCE),
    pytest.param(REDIS_SESSIONS, marks=pytest.mark.redis),
]


@pytest.fixture
def browsers():
    """A hundred clients, which keep their cookies when the site is started again."""
    given = {"headers": {"user-agent": FIREFOX}, "timeout": servers.PATIENCE, "verify": NO_TLS}
    with ExitStack() as stack:
        yield [stack.enter_context(httpx.Client(**given)) for _ in VISITORS]


def at_once(function, browsers, visitors, url):
    """Call a function for these clients, ten at a time."""
    with ThreadPoolExecutor(10) as pool:
        return list(pool.map(function, browsers, visitors, repeat(url)))


def sign_in(browser, name, url):
    assert browser.post(f"{url}/sign_in/", data={"name": name}).text == "signed in"


def is_as_before(browser, name, url):
    return browser.get(f"{url}/cart/").json() == {"user": name, "cart": ["teapot"]}


@pytest.mark.parametrize("engine", ENGINES)
def test_hundred_clients_stay_signed_in(engine, site, browsers):
    app = engine.partition(".")[0]
    apps, middleware = "", ""
    if app in ("user_sessions", "qsessions"):
        apps, middleware = app, f"{app}.middleware.SessionMiddleware"
    with site(engine=engine, apps=apps, middleware=middleware, is_new="1") as (url, _):
        at_once(sign_in, browsers, VISITORS, url)
        assert is_as_before(browsers[0], VISITORS[0], url)
    with site(engine=HERE, adopt_from=engine, apps=apps) as (url, env):
        # Half of them come by themselves. The others are moved first.
        assert all(at_once(is_as_before, browsers[:50], VISITORS[:50], url))
        if engine in LISTED:
            said = run_python(servers.PROJECT, *OLD, "-m", "django", "adoptsessions", env=env)
            assert "Moved 50 sessions." in said
            page = browsers[-1].get(f"{url}/account/sessions/", headers=PAGE).text
            assert "This device" in page
            assert ("Firefox on Linux" in page) is (engine in WITH_DEVICES)
        assert all(at_once(is_as_before, browsers[50:], VISITORS[50:], url))
    with site(engine=HERE) as (url, _):
        assert all(at_once(is_as_before, browsers[40:60], VISITORS[40:60], url))

"""A mail server that takes its time keeps nobody waiting, under any web server."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import servers
from tests.home.test_servers import SERVERS
from tests.own_browser import OwnBrowser
from tests.people import FIREFOX
from tests.projects import run_python
from tests.redis_servers import wait_for
from tests.servers import PROJECT

pytestmark = pytest.mark.postgresql  # as for all web servers


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a shop with its users."""
    folder = tmp_path_factory.mktemp("shop")
    env = {
        "DATABASE_URL": f"sqlite:///{folder}/shop.sqlite3",
        "DJANGO_SETTINGS_MODULE": "tests.home.noticed_settings",
    }
    run_python(PROJECT, "manage.py", "demo", "--prepare", env=env)
    return env


@pytest.fixture
def browser(
    request: pytest.FixtureRequest, env: dict[str, str], log: Path, tmp_path: Path
) -> Iterator[OwnBrowser]:
    with ExitStack() as stack:
        here = {**env, "FOLDER": str(tmp_path)}
        site = stack.enter_context(servers.serve(SERVERS[request.param], log, here))
        yield stack.enter_context(OwnBrowser(site, FIREFOX))


@pytest.mark.parametrize("browser", SERVERS, indirect=True)
def test_answer_comes_before_the_mail(browser: OwnBrowser, tmp_path: Path):
    browser.sign_in("alice")
    assert browser.get("/reuse/", timeout=30).text == "answered"
    wait_for((tmp_path / "began").exists)
    assert not (tmp_path / "mail").exists()
    (tmp_path / "go").touch()
    wait_for((tmp_path / "mail").exists)
    assert "https://shop.example/account/sessions/report/" in (tmp_path / "mail").read_text()
    assert browser.get("/account/").url.path == "/account/"

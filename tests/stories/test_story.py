"""
The main job, over HTTP against the example project as ``make demo`` serves it: sign in on two
devices, see both, end one. Then everything it has left behind is searched for what must not be.
"""

# ruff: noqa: S608 (names of tables)

import os
import re
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from django_sessionkit.backends.sealing import digest_of
from example_project.management.commands.demo import PASSWORD
from example_project.products import PRODUCTS
from tests import servers, store
from tests.browsers import PAGE
from tests.own_browser import OwnApp, OwnBrowser
from tests.people import FIREFOX, IPHONE

TEAPOT = PRODUCTS[0]
SECRETS = {
    "name": "Ottilie Grünbaum",
    "street": "Zwetschgenweg 7",
    "postcode": "EC1A 1BB",  # no digits that a digest could have by chance
    "city": "Xanten",
}


@pytest.fixture
def env(settings):
    """The environment of the example: sessions on the store of this leg, under keys of the test."""
    env = {"DJANGO_SETTINGS_MODULE": "tests.story_settings", "STORE": "db"}
    if store.ON_REDIS:
        env["STORE"] = "redis"
        env["REDIS_URL"] = settings.CACHES["sessions"]["LOCATION"]
        env["SESSIONKIT_REDIS_PREFIX"] = settings.SESSIONKIT_REDIS_PREFIX
    return env


@pytest.fixture
def browse(example_database, log, env):
    """Open a browser on a device."""
    OwnBrowser.keys.clear()
    with servers.serve_example(example_database, log, env) as site, ExitStack() as browsers:
        yield lambda user_agent: browsers.enter_context(OwnBrowser(site, user_agent))


@pytest.mark.standard("ASVS-3.3.4", "ASVS-7.2.4", "ASVS-14.2.1", "ASVS-16.2.5", "WSTG-SESS-04")
def test_alice_ends_a_session_and_staff_ends_the_other(browse, example_database, log, settings):
    others = keys_in_redis(settings)
    laptop, phone, office = browse(FIREFOX), browse(IPHONE), browse(FIREFOX)

    # A visitor fills a cart, and takes it along when she signs in.
    page = laptop.get(f"/products/{TEAPOT.slug}/")
    laptop.send_form(page, f"/cart/{TEAPOT.slug}/add/")
    assert str(TEAPOT.name) in laptop.get("/cart/").text
    before = laptop.cookies["sessionid"]
    laptop.sign_in("alice")
    assert laptop.cookies["sessionid"] != before
    assert str(TEAPOT.name) in laptop.get("/cart/").text
    laptop.submit(laptop.get("/checkout/address/"), **SECRETS)
    assert SECRETS["city"] in laptop.get("/checkout/address/").text  # is kept
    phone.sign_in("alice")

    # Both are listed on both.
    for here, this, other in [(laptop, "Firefox on Linux", "Safari"), (phone, "Safari", "Firefox")]:
        text = here.get("/account/sessions/").text
        assert text.count("This device") == 1
        assert text.index(this) < text.index("This device") < text.index(other)
        assert "127.0.0.1" in text

    # The laptop ends the phone.
    asks = laptop.follow(laptop.get("/account/sessions/"), "Sign out: Safari on iOS")
    assert "Safari on iOS" in asks.text
    page = laptop.submit(asks)
    assert page.url.path == "/account/sessions/"
    assert "Safari on iOS was signed out" in page.text
    assert "Safari on iOS, 127.0.0.1" not in page.text

    # The phone's next page is the sign-in page, with the message; the laptop is still in.
    page = phone.get("/account/")
    assert page.url.path == "/account/sign-in/"
    assert "You were signed out from another device (Firefox on Linux, just now)." in page.text
    assert "sign in and change your password" in page.text
    assert "sessionid" not in phone.cookies
    assert laptop.get("/account/").url.path == "/account/"

    # Staff ends the laptop.
    page = office.get("/admin/login/")
    office.submit(page, username="staff", password=PASSWORD)
    page = office.get("/admin/django_sessionkit/usersession/?q=alice")
    (row,) = [
        row
        for row in re.findall(r"<tr>.*?</tr>", page.text, re.DOTALL)
        if "Firefox" in row and "alice" in row
    ]
    handle = re.search(r'value="([-0-9a-f]{36})"', row)[1]
    chosen = {"action": "delete_selected", "_selected_action": handle}
    page = office.submit(page, **chosen)
    assert "End 1 session of 1 person?" in page.text
    page = office.submit(page, **chosen, post="yes", note="a stolen laptop")
    assert page.status_code == 200
    page = laptop.get("/account/")
    assert page.url.path == "/account/sign-in/"
    assert "You were signed out by the staff of this site." in page.text
    assert office.get("/admin/").url.path == "/admin/"

    # Nobody can use, or read, what is left.
    assert len(OwnBrowser.keys) == 4
    dump, said = dump_of(example_database), log.read_text(errors="replace")
    assert digest_of(office.cookies["sessionid"]) in dump
    assert "GET /account/sessions/" in said
    assert "UPDATE" in said  # the statements are there
    if store.ON_REDIS:
        keys = keys_in_redis(settings) - others
        assert store.key_in_redis(digest_of(office.cookies["sessionid"])) in keys
        dump += "\n".join(key + store.client().get(key).decode("latin-1") for key in keys)
    for left in (dump, said):
        assert not [key for key in OwnBrowser.keys if key in left]
        assert not [word for word in SECRETS.values() if word in left]
        assert f"cart:{TEAPOT.slug}" not in left
    assert TEAPOT.slug not in dump


@pytest.mark.standard("ASVS-14.2.1", "ASVS-16.2.5", "WSTG-SESS-04")
def test_an_app_is_renewed_and_revoked_and_leaves_no_key(example_database, log, env, settings):
    others = keys_in_redis(settings)
    env = {**env, "SESSIONKIT_POLICY": "tests.policies.renews"}
    with (
        servers.serve_example(example_database, log, env) as site,
        OwnApp(site) as phone,
        OwnBrowser(site, FIREFOX) as laptop,
    ):
        phone.sign_in(name="Shop", version="2.3", system="Android", model="Pixel 8")
        assert phone.post("/write/", data=SECRETS).text == "written"
        assert phone.get("/read/").json() == SECRETS

        # The key changes by itself, and by a proof of identity. The old one is used in its grace.
        phone.get("/later/700/")
        first = phone.keys[-1]
        assert phone.get("/read/").json() == SECRETS
        assert phone.get("/read/", headers={"Authorization": f"Bearer {first}"}).json() == SECRETS
        phone.post("/account/sessions/reauthenticate/", data={"password": PASSWORD})
        assert len(set(phone.keys)) == 3
        assert phone.get("/read/").json() == SECRETS
        assert phone.get("/crash/").status_code == 500  # the page is a report of the error

        laptop.sign_in("alice")
        page = laptop.get("/account/sessions/")
        laptop.submit(laptop.follow(page, "Sign out: Shop on Android"))
        answer = phone.get("/account/")
        assert (answer.status_code, answer.json()["reason"]) == (401, "revoked")

        # Another sign-in, so that there is something to be found.
        phone.sign_in(name="Shop")
        assert phone.post("/write/", data=SECRETS).text == "written"

    dump, said = dump_of(example_database), log.read_text(errors="replace")
    digest = digest_of(phone.keys[-1].removeprefix("sk_"))
    assert digest in dump
    assert "GET /crash/" in said
    assert "UPDATE" in said
    if store.ON_REDIS:
        keys = keys_in_redis(settings) - others
        assert store.key_in_redis(digest) in keys
        dump += "\n".join(key + store.client().get(key).decode("latin-1") for key in keys)
    assert len(set(phone.keys)) == 4
    for left in (dump, said):
        assert not [key for key in phone.keys if key.removeprefix("sk_") in left]
        assert not [word for word in SECRETS.values() if word in left]


TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
    "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    "mysql": "SHOW TABLES",
}


def dump_of(url):
    """Return every row of every table as text, with bytes as what they could be read as."""
    with servers.connected(url) as cursor:
        cursor.execute(TABLES[urlsplit(url).scheme])
        names = [name for (name,) in cursor.fetchall()]
        assert "django_sessionkit_usersession" in names
        rows = []
        for name in names:
            cursor.execute(f"SELECT * FROM {name}")
            rows += cursor.fetchall()
    text = [v.decode("latin-1") if isinstance(v, bytes) else str(v) for row in rows for v in row]
    return "\n".join(text)


def keys_in_redis(settings):
    """Return every key, or those of this test where the server may be somebody's."""
    if not store.ON_REDIS:
        return set()
    mine = settings.SESSIONKIT_REDIS_PREFIX if os.environ.get("TEST_REDIS_URL") else ""
    return {key.decode() for key in store.client().scan_iter(match=f"{mine}*", count=1000)}


@pytest.mark.standard("ASVS-2.4.1", "ASVS-7.6.2")
def test_a_thousand_visitors_without_a_cookie_leave_nothing(example_database, log, env, settings):
    others = keys_in_redis(settings)
    pages = ["/", f"/products/{TEAPOT.slug}/", "/cart/", "/preferences/", "/account/sign-in/"]
    pages += ["/account/", "/account/sessions/", "/checkout/", "/admin/login/", "/nowhere/"]
    with (
        servers.serve_example(example_database, log, {**env, "DEBUG": "no"}) as site,
        httpx.Client(
            base_url=site, headers=PAGE | {"Connection": "close"}, timeout=servers.PATIENCE
        ) as client,
    ):
        for number in range(1000):
            client.cookies.clear()
            response = client.get(pages[number % len(pages)])
            assert response.status_code in (200, 302, 404)
            assert "sessionid" not in response.cookies
    with servers.connected(example_database) as cursor:
        for name in ("storedsession", "usersession"):
            cursor.execute(f"SELECT count(*) FROM django_sessionkit_{name}")
            assert cursor.fetchone() == (0,)
    assert keys_in_redis(settings) == others

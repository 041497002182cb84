"""
Makes the pictures of the docs: ``make screenshots``, or ``python -m tests.browser.pictures``.

A browser visits the example shop, at a time that is always the same, from addresses that belong to
nobody (RFC 5737). So the same machine makes the same pictures. Look at them before you commit them.
"""

import argparse
import io
import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import django
import time_machine
from django.core.management import call_command
from django.test import Client
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from playwright.sync_api import Browser, ConsoleMessage, Page

from tests.servers import PROJECT

IMAGES = PROJECT / "docs" / "images"
NOW = datetime(2026, 11, 26, 9, 41, tzinfo=ZoneInfo("Europe/London"))
PLACES = {
    "192.0.2.0/24": ("London", "GB", "United Kingdom"),
    "198.51.100.0/24": ("Bristol", "GB", "United Kingdom"),
    "203.0.113.0/24": ("Lisbon", "PT", "Portugal"),
}
HOME, OFFICE, AWAY = "192.0.2.44", "198.51.100.7", "203.0.113.90"

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/150.0.0.0 Safari/537.36"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1"
)
PHONE = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/150.0.0.0 Mobile Safari/537.36"
)
IPAD = (
    "Mozilla/5.0 (iPad; CPU OS 18_7 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1"
)
LIST = "/account/sessions/"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=IMAGES, help="default: docs/images")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        write_places(f"{temporary}/places.mmdb")
        os.environ |= {
            "DATABASE_URL": f"sqlite:///{temporary}/shop.sqlite3",
            "DJANGO_SETTINGS_MODULE": "tests.browser.pictures_settings",
            "GEOIP_PATH": f"{temporary}/places.mmdb",
            "STORE": "db",
        }
        django.setup()
        logging.disable(logging.WARNING)  # of devices that are told why they were signed out
        call_command("demo", prepare=True, stdout=io.StringIO())
        from tests.browser import chromium

        with chromium.served() as shop, chromium.launched() as browser:
            take(browser, shop, folder)


def write_places(path: str) -> None:
    """Write a small database of places."""
    writer = MMDBWriter(ip_version=4, database_type="GeoIP2-City", languages=["en"])
    for network, (city, code, country) in PLACES.items():
        names = {"city": {"names": {"en": city}}}
        there = {"country": {"iso_code": code, "names": {"en": country}}}
        writer.insert_network(IPSet([network]), names | there)
    writer.to_db_file(path)


def take(browser: Browser, shop: str, folder: Path) -> None:
    """Take all pictures."""
    for back, user_agent, address, seen in [
        (timedelta(days=10), IPAD, HOME, timedelta(days=3)),
        (timedelta(days=6), IPHONE, OFFICE, timedelta(hours=2)),
    ]:
        with at(NOW - back):
            device = sign_in_elsewhere(user_agent, address)
        with at(NOW - seen):
            device.get(LIST)
    with ExitStack() as contexts:

        def open_device(user_agent: str, address: str, **options: Any) -> Page:
            return contexts.enter_context(a_device(browser, shop, user_agent, address, **options))

        with at(NOW - timedelta(hours=5)):
            strange = open_device(FIREFOX, AWAY)
            sign_in(strange)
        with at(NOW - timedelta(minutes=12)):
            strange.goto("/account/")
        with at(NOW):
            laptop = open_device(CHROME, HOME)
            sign_in(laptop, to=LIST)
            shoot(laptop, folder / "list.png")
            laptop.emulate_media(color_scheme="dark")
            shoot(laptop, folder / "list-dark.png")
            laptop.emulate_media(color_scheme="light")

            phone = open_device(PHONE, OFFICE, viewport={"width": 390, "height": 844})
            sign_in(phone, to=LIST)
            phone.locator(f'label[for="session-{handle_of(IPAD)}"]').click()
            phone.set_viewport_size({"width": 800, "height": 900})
            shoot(phone, folder / "limit.png")
            phone.set_viewport_size({"width": 390, "height": 844})
            phone.locator(".sessionkit-main:visible").click()
            phone.goto(LIST)
            shoot(phone, folder / "list-telephone.png")

            laptop.goto(f"{LIST}{handle_of(FIREFOX)}/end/")
            shoot(laptop, folder / "confirmation.png")
            laptop.locator(".sessionkit-main:visible").click()
            strange.goto("/account/")
            shoot(strange, folder / "farewell.png")

            office = open_device(FIREFOX, OFFICE, viewport={"width": 1440, "height": 800})
            sign_in(office, "staff", to="/admin/django_sessionkit/usersession/")
            shoot(office, folder / "admin.png")


@contextmanager
def at(moment: datetime) -> Iterator[None]:
    """Let this process, and so the shop, take this for the present."""
    with time_machine.travel(moment):
        yield


def sign_in_elsewhere(user_agent: str, address: str) -> Client:
    """Sign Alice in on a device that is in no picture."""
    from example_project.management.commands.demo import PASSWORD
    from tests.pages import press

    headers = {"user-agent": user_agent, "x-forwarded-for": address, "accept": "text/html"}
    device = Client(headers=headers, SERVER_NAME="127.0.0.1")
    press(device, "/account/sign-in/", username="alice", password=PASSWORD)
    return device


@contextmanager
def a_device(
    browser: Browser, shop: str, user_agent: str, address: str, **options: Any
) -> Iterator[Page]:
    """Open a device. In the end, its pages may have done nothing that the shop's policy forbids."""
    troubles: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if not message.location["url"].endswith("/favicon.ico"):  # the admin has none
            troubles.append(message.text)

    options = {"viewport": {"width": 1000, "height": 840}, **options}
    with browser.new_context(
        base_url=shop,
        user_agent=user_agent,
        extra_http_headers={"X-Forwarded-For": address},
        locale="en-GB",
        **options,
    ) as context:
        context.on("console", heard)
        context.on("weberror", lambda error: troubles.append(str(error.error)))
        yield context.new_page()
    if troubles:
        raise SystemExit("\n".join(troubles))


def sign_in(page: Page, name: str = "alice", to: str = "/") -> None:
    from example_project.management.commands.demo import PASSWORD

    sign_in_page = "/admin/login/" if name == "staff" else "/account/sign-in/"
    page.goto(f"{sign_in_page}?next={to}")
    page.fill("[name=username]", name)
    page.fill("[name=password]", PASSWORD)
    page.press("[name=password]", "Enter")
    page.wait_for_load_state()


def handle_of(user_agent: str) -> uuid.UUID:
    """Return the handle of the only session on such a device."""
    from django_sessionkit.models import UserSession

    return UserSession.objects.get(user_agent=user_agent).pk


def shoot(page: Page, path: Path) -> None:
    page.screenshot(path=path, animations="disabled", caret="hide")


if __name__ == "__main__":
    main()

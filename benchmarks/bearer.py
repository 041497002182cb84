"""
Requests of apps per second, under uvicorn: each app sends its token in a header. Beside the tokens
of allauth's headless apps, which are sessions, and those of django-rest-knox, which are rows.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

from benchmarks import shop
from benchmarks.contenders import DJANGO_CACHE, KIT_REDIS, Contender, Servers
from benchmarks.report import Ratio, Rounds, Table
from tests.servers import HOST, PROJECT, free_port

APPS_AT_ONCE = 50
TOKENS = 100


class Site(NamedTuple):
    contender: Contender  # whose sessions, or at least whose database
    header: str
    authentication: str
    apps: tuple[str, ...] = ()
    middleware: tuple[str, ...] = ()
    page: str = "/who/"
    has_own_tokens: bool = False


OURS = "django_sessionkit.api.authentication.SessionAuthentication"
KIT, KIT_ASYNC = "django-sessionkit", "django-sessionkit, async view"
HEADLESS, KNOX = "allauth, X-Session-Token", "django-rest-knox"
SITES = {
    KIT: Site(KIT_REDIS, "Authorization: Bearer sk_{}", OURS, ("rest_framework",)),
    KIT_ASYNC: Site(
        KIT_REDIS, "Authorization: Bearer sk_{}", OURS, ("rest_framework",), page="/awho/"
    ),
    HEADLESS: Site(
        DJANGO_CACHE,
        "X-Session-Token: {}",
        "allauth.headless.contrib.rest_framework.authentication.XSessionTokenAuthentication",
        ("rest_framework", "allauth", "allauth.account", "allauth.headless"),
        ("allauth.account.middleware.AccountMiddleware",),
    ),
    KNOX: Site(
        DJANGO_CACHE,
        "Authorization: Token {}",
        "knox.auth.TokenAuthentication",
        ("rest_framework", "knox"),
        has_own_tokens=True,
    ),
}

# Makes the tables of a package, and some tokens for the user of a contender.
MAKE_TOKENS = """
import json, sys
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from knox.models import AuthToken
call_command("migrate", verbosity=0)
user = User.objects.get(username=sys.argv[1])
made = [AuthToken.objects.create(user=user)[1] for _ in range(int(sys.argv[2]))]
print(json.dumps(made))
"""


def environment(name: str, servers: Servers) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "benchmarks.bearer_settings",
        "BENCHMARKS_SITE": name,
        "BENCHMARKS_SERVERS": json.dumps(servers),
    }


def tokens_of(name: str, servers: Servers, keys: list[str]) -> list[str]:
    """Return the headers with the tokens of a site whose contender has these session keys."""
    site = SITES[name]
    if site.has_own_tokens:
        command = [sys.executable, "-c", MAKE_TOKENS, site.contender.name, str(TOKENS)]
        keys = json.loads(
            subprocess.check_output(command, cwd=PROJECT, env=environment(name, servers))
        )
    return [site.header.format(key) for key in keys]


def serve(name: str, servers: Servers) -> AbstractContextManager[int]:
    """Serve a site with one worker, and yield the port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--host", HOST, "--port", str(port)]
    command += ["--log-level", "error", "--lifespan", "off", "benchmarks.bearer_site:application"]
    return shop.running(name, command, environment(name, servers), port)


def table_of(figures: Mapping[str, Rounds]) -> Table:
    """Return a table of the requests per second."""
    table = Table(
        f"Apps with a token, {APPS_AT_ONCE} at once, under uvicorn with one worker",
        ["", "requests/s", "to allauth"],
        notes=["A view of REST framework that answers with the name of the user."],
    )
    for name, rounds in figures.items():
        rate = f"{len(rounds) / sum(rounds):,.0f}"
        table.rows.append([name, rate, str(Ratio.of(figures[HEADLESS], rounds))])
        table.figures[name] = rounds
    return table

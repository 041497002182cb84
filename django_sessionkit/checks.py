"""
System checks: what ``manage.py check`` says about the settings of a site.

An error means that something cannot work, or that nobody can want it. A warning means that the site
works, but with less than it could have. No check reads a file, and only W009, W013, W017, W021 and
W023 ask a server, Redis or the database. They run with ``check --database`` and ``migrate``.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from importlib.util import find_spec
from inspect import getmro
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.module_loading import import_string

from django_sessionkit.adoption import Table, engine_of
from django_sessionkit.conf import conf
from django_sessionkit.key_material import ALGORITHMS
from django_sessionkit.models import PurgeRun, SigningKey, UserSession
from django_sessionkit.policy import HUNDRED_YEARS
from django_sessionkit.selection import since
from django_sessionkit.signals import Notice
from django_sessionkit.signing_keys import LONGEST_AGE
from django_sessionkit.visit.redirects import sign_in_url
from django_sessionkit.workers import enqueue_of

# id: (what is wrong, what to do). An id keeps its meaning, and is never given to another check.
MESSAGES = {
    "E001": (
        "SESSION_ENGINE = {engine!r} cannot be imported: {error}.",
        'Set SESSION_ENGINE = "django_sessionkit.backends.db", or install what your engine needs.',
    ),
    "E002": (
        "SESSION_ENGINE = {engine!r} does not use django-sessionkit: no session can be ended.",
        'Set SESSION_ENGINE = "django_sessionkit.backends.db".',
    ),
    "E003": (
        "MIDDLEWARE has no session middleware.",
        'Add "django_sessionkit.middleware.SessionMiddleware", before what needs the session.',
    ),
    "E004": (
        "MIDDLEWARE has more than one session middleware: {middleware}.",
        'Leave only "django_sessionkit.middleware.SessionMiddleware".',
    ),
    "E005": (
        "{middleware} comes before {session_middleware} in MIDDLEWARE, but needs the session.",
        'Move "{session_middleware}" up, before "{middleware}".',
    ),
    "E006": (
        "{name} = {value!r} is not {meant}.",
        "Set {name} to {meant}, or leave it out for its default.",
    ),
    "E007": (
        "There is no setting {name}.",
        "Rename it to {known}, or remove it.",
    ),
    "E008": (
        "SESSION_SERIALIZER = {serializer!r} unpickles: whoever writes a session can run code.",
        'Set SESSION_SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer".',
    ),
    "E009": (
        "Browsers refuse a cookie named {cookie!r} without {setting} = {value!r}.",
        "Set {setting} = {value!r}, or a {name} without this prefix.",
    ),
    "E010": (
        'Browsers refuse a cookie with SESSION_COOKIE_SAMESITE = "None" that is not Secure.',
        "Set SESSION_COOKIE_SECURE = True.",
    ),
    "E011": (
        "{app} is not in INSTALLED_APPS, and django-sessionkit does not work without it.",
        'Add "{app}" to INSTALLED_APPS.',
    ),
    "E012": (
        "SESSION_CACHE_ALIAS = {alias!r} names no cache with one Redis behind it.",
        "Set the alias of a cache of django_redis.cache.RedisCache, without ShardClient.",
    ),
    "E013": (
        "SESSIONKIT_POLICY = {policy!r} {wrong}.",
        'Set it to "django_sessionkit.policy.aal2", or to the path of a function (user, request).',
    ),
    "E014": (
        "Users are written to the database {users!r}, and their sessions to {sessions!r}.",
        "Let DATABASE_ROUTERS send django_sessionkit to {users!r}: queries join the two tables.",
    ),
    "E015": (
        "SESSIONKIT_ADOPT_FROM names {engine!r}, which cannot be imported: {error}.",
        "Name a module with a SessionStore, as SESSION_ENGINE does, and install what it needs.",
    ),
    "E016": (
        "SESSIONKIT_NOTICES needs SESSIONKIT_SITE_URL, for the links in mails.",
        'Set SESSIONKIT_SITE_URL = "https://www.example.com", with the host of your site.',
    ),
    "E017": (
        "SESSIONKIT_NOTICES needs the pages that the links in mails lead to.",
        'Add path("account/sessions/", include("django_sessionkit.urls")) to ROOT_URLCONF.',
    ),
    "E018": (
        "Tokens have no issuer: neither SESSIONKIT_TOKEN_ISSUER nor SESSIONKIT_SITE_URL is set.",
        'Set SESSIONKIT_SITE_URL = "https://www.example.com", with the host of your site.',
    ),
    "E019": (
        "SESSIONKIT_TOKEN_CLAIMS = {path!r} {wrong}.",
        "Set it to the path of a function (user, session) that returns a dictionary.",
    ),
    "E020": (
        "Tokens need PyJWT, which is not installed.",
        'Install "django-sessionkit[jwt]".',
    ),
    "E021": (
        "KEY_FUNCTION of CACHES[{alias!r}] parts keys that are read together: no session loads.",
        "Remove KEY_FUNCTION, or let it end with the key as it is given, as Django's own does.",
    ),
    "E022": (
        "{app} needs the API of OpenTelemetry, which is not installed.",
        'Install "django-sessionkit[metrics]".',
    ),
    "E023": (
        'SESSIONKIT_ACTIVITY = "buffered" needs sessions in Redis, not in {engine!r}.',
        'Leave it out, or set SESSION_ENGINE = "django_sessionkit.backends.redis".',
    ),
    "W001": (
        "With {middleware}, no device is known, and activity does not keep a session alive.",
        'Replace it by "django_sessionkit.middleware.SessionMiddleware" in MIDDLEWARE.',
    ),
    "W002": (
        "{middleware} comes after {session_middleware} in MIDDLEWARE, so it caches private pages.",
        'Move "{middleware}" up, before "{session_middleware}".',
    ),
    "W003": (
        "SESSIONKIT_TOUCH_INTERVAL is not below SESSION_COOKIE_AGE: a tenth of the age is used.",
        "Set SESSIONKIT_TOUCH_INTERVAL = 60, or leave it out.",
    ),
    "W004": (
        "SESSION_SAVE_EVERY_REQUEST is not needed: activity keeps a session alive without it.",
        "Set SESSION_SAVE_EVERY_REQUEST = False, or leave it out.",
    ),
    "W012": (
        "SESSION_ENGINE = {engine!r} is Django's: no session is listed, and none can be ended.",
        'Set SESSION_ENGINE = "django_sessionkit.backends.db", or migrate django_sessionkit zero.',
    ),
    "W014": (
        "Whoever is signed out from elsewhere is not told why: there is no {missing}.",
        "Add {missing}. If your pages show no messages, silence this check.",
    ),
    "W015": (
        "LOGIN_URL = {url!r} leads to no page, so whoever was signed out is not sent to sign in.",
        'Set LOGIN_URL to your sign-in page, for example "admin:login", or to a URL with its host.',
    ),
    "W020": (
        "SESSIONKIT_POLICY = {policy!r} may lock sessions, but there is no page to unlock them.",
        'Add path("account/sessions/", include("django_sessionkit.urls")) to ROOT_URLCONF.',
    ),
    "W022": (
        "SESSIONKIT_ADOPT_FROM names {engine!r}, which is SESSION_ENGINE, too.",
        "Remove it from SESSIONKIT_ADOPT_FROM: sessions move from there to SESSION_ENGINE.",
    ),
    "W024": (
        "SESSIONKIT_VISITOR_AGE is not below SESSION_COOKIE_AGE, so it changes nothing.",
        "Set it to fewer seconds than SESSION_COOKIE_AGE = {age}, or leave it out.",
    ),
    "W025": (
        'SESSIONKIT_ACTIVITY = "buffered", but no worker can carry activity to the rows.',
        "Set up Celery or Django's Tasks, and a schedule, or leave SESSIONKIT_ACTIVITY out.",
    ),
    # Of check_deployment().
    "W005": (
        "SESSION_COOKIE_SECURE is not True: the session cookie may be sent without encryption.",
        "Set SESSION_COOKIE_SECURE = True.",
    ),
    "W006": (
        "SESSION_COOKIE_HTTPONLY is not True: a script in a page can read the session cookie.",
        "Set SESSION_COOKIE_HTTPONLY = True, or leave it out.",
    ),
    "W007": (
        "SESSION_COOKIE_SAMESITE = {samesite!r}: requests from other sites carry the cookie.",
        'Set SESSION_COOKIE_SAMESITE = "Lax". If other sites embed yours, silence this check.',
    ),
    "W008": (
        "SESSION_COOKIE_NAME = {cookie!r} has no prefix: other hosts can set it (ASVS 3.3.1).",
        'Set SESSION_COOKIE_NAME = "{prefix}sessionid". Everybody has to sign in once more.',
    ),
    "W010": (
        "CSRF_USE_SESSIONS is not True: NIST {level} asks for CSRF tokens tied to a session.",
        "Set CSRF_USE_SESSIONS = True. Whoever has a form open then has to load it again.",
    ),
    "W011": (
        "The session cookie outlives the browser, which NIST {level} advises against.",
        "Set SESSION_EXPIRE_AT_BROWSER_CLOSE = True.",
    ),
    "W016": (
        "SESSIONKIT_SITE_URL = {url!r}: the links in mails are not encrypted on their way.",
        'Let it begin with "https://".',
    ),
    "W019": (
        "SESSION_ENGINE = {engine!r} keeps sessions in the memory of one process.",
        'Set SESSION_ENGINE = "django_sessionkit.backends.db": this one is for tests.',
    ),
    # Of `check --database`, and of migrate.
    "W009": (
        "Redis may evict sessions when it is full: its maxmemory-policy is {policy!r}.",
        "Run CONFIG SET maxmemory-policy noeviction, or give the sessions a Redis of their own.",
    ),
    "W013": (
        "The Redis of SESSION_CACHE_ALIAS = {alias!r} did not answer, so it was not checked.",
        'Start it, or correct CACHES[{alias!r}]["LOCATION"]. Then check once more.',
    ),
    "W017": (
        "Nothing has purged sessions for a day: the tables grow, and the lists show what is over.",
        "Run manage.py purgesessions every hour, by cron for example. See docs/operations.md.",
    ),
    "W021": (
        "SESSIONKIT_ADOPT_FROM names {engine!r}, but there is no table {table!r}.",
        "Run migrate, or remove {engine!r} from SESSIONKIT_ADOPT_FROM: it has no sessions.",
    ),
    "W023": (
        "No key signs tokens, so there are none.",
        "Run manage.py tokenkeys --make.",
    ),
}

ENGINE = "django_sessionkit.backends.base.SessionStore"
DJANGOS_ENGINES = "django.contrib.sessions.backends."
MEMORY = "django_sessionkit.backends.memory"
METRICS = "django_sessionkit.metrics"
MIDDLEWARE = "django_sessionkit.middleware.SessionMiddleware"
RETURNING = "django_sessionkit.leaving.SessionMiddleware"
ANY_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"  # the base of ours

# What it takes for a message to reach a page.
MESSAGES_APP = "django.contrib.messages"
MESSAGES_MIDDLEWARE = "django.contrib.messages.middleware.MessageMiddleware"
MESSAGES_PROCESSOR = "django.contrib.messages.context_processors.messages"
PROCESSORS = "context_processors"
DJANGOS_TEMPLATES = "django.template.backends.django.DjangoTemplates"

# The presets that stand for a level of NIST. A site that chose one is told what else the level asks
# for, besides timeouts.
LEVELS = {"django_sessionkit.policy.aal2": "AAL2", "django_sessionkit.policy.aal3": "AAL3"}
# The presets that never lock a session. Nobody can tell what a function of the site may answer.
NEVER_LOCK = {f"django_sessionkit.policy.{name}" for name in ("default", "staff", "aal1", "aal3")}


# What can be the name of a cookie (RFC 6265 §4.1.1).
TOKEN = re.compile(r"[\w!#$%&'*+.^`|~-]{1,100}", re.ASCII)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_full_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _are_paths(value: object) -> bool:
    paths = value if isinstance(value, (list, tuple)) else [None]
    return all(isinstance(path, str) and path.startswith("/") for path in paths)


def _is_own_cookie(value: object) -> bool:
    if not value:
        return value in (None, "")
    taken = {settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME, settings.LANGUAGE_COOKIE_NAME}
    return isinstance(value, str) and bool(TOKEN.fullmatch(value)) and value not in taken


def _are_notices(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(kind in NOTICES for kind in value)


def _is_site_url(value: object) -> bool:
    """Tell whether a value is "", or a URL with a host, and nothing after that."""
    return isinstance(value, str) and (value == "" or SITE_URL.fullmatch(value) is not None)


def _are_engines(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_full_text, value))


def _is_extent(value: object) -> bool:
    return value in ("whole", "truncated", "none")


def _is_activity(value: object) -> bool:
    return value in ("direct", "buffered")


def _is_algorithm(value: object) -> bool:
    return value in ALGORITHMS


def _is_age(value: object) -> bool:
    return value is None or (type(value) is int and value in range(HUNDRED_YEARS))


def _is_lifetime(value: object) -> bool:
    return value != 0 and _is_age(value)


# Without a path: Django's FORCE_SCRIPT_NAME has that of a site which is under one.
SITE_URL = re.compile(r"https?://(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d{1,5})?/?")
NOTICES = [kind.value for kind in Notice]

# The valid values of every setting in conf.py: a range of whole numbers, or their description and a
# function that recognises them.
VALUES: dict[str, range | tuple[str, Callable[[object], bool]]] = {
    "SESSIONKIT_TOUCH_INTERVAL": range(1, HUNDRED_YEARS),
    "SESSIONKIT_ACTIVITY": ('"direct" or "buffered"', _is_activity),
    "SESSIONKIT_TRUSTED_PROXIES": range(100),
    "SESSIONKIT_RETENTION": range(HUNDRED_YEARS),
    "SESSIONKIT_ADDRESSES": ('"whole", "truncated" or "none"', _is_extent),
    "SESSIONKIT_ADDRESS_RETENTION": (
        f"a whole number from 0 to {HUNDRED_YEARS - 1}, or None",
        _is_age,
    ),
    "SESSIONKIT_REDIS_PREFIX": ("a string that is not empty", _is_full_text),
    "SESSIONKIT_MEMORY_LIMIT": range(1, 1_000_000_000),
    "SESSIONKIT_POLICY": ("a string that is not empty", _is_full_text),
    "SESSIONKIT_VISITOR_AGE": (
        f"a whole number from 1 to {HUNDRED_YEARS - 1}, or None",
        _is_lifetime,
    ),
    "SESSIONKIT_REAUTHENTICATION_URL": ("a string", _is_text),
    "SESSIONKIT_BACKGROUND": ('a list of paths that begin with "/"', _are_paths),
    "SESSIONKIT_DEVICE_COOKIE": ("the name of a cookie of its own, or None", _is_own_cookie),
    "SESSIONKIT_ADOPT_FROM": ("a list of engines, as SESSION_ENGINE names one", _are_engines),
    "SESSIONKIT_NOTICES": (f"a list of some of {', '.join(NOTICES)}", _are_notices),
    "SESSIONKIT_SITE_URL": ('a URL such as "https://www.example.com"', _is_site_url),
    "SESSIONKIT_TOKEN_AGE": range(1, LONGEST_AGE + 1),
    "SESSIONKIT_TOKEN_ISSUER": ("a string", _is_text),
    "SESSIONKIT_TOKEN_AUDIENCE": ("a string", _is_text),
    "SESSIONKIT_TOKEN_CLAIMS": ("a string", _is_text),
    "SESSIONKIT_TOKEN_ALGORITHM": ('"ES256", "EdDSA" or "HS256"', _is_algorithm),
}

# What is to be less than SESSION_COOKIE_AGE, and which check says so.
AGES = {"W003": "SESSIONKIT_TOUCH_INTERVAL", "W024": "SESSIONKIT_VISITOR_AGE"}

# The settings without which browsers refuse a cookie with this prefix, in upper or lower case: RFC
# 6265bis §4.1.3, and the draft of its successor ("layered cookies") for the two with "Http".
SECURE = {"SESSION_COOKIE_SECURE": True}
HTTP = {**SECURE, "SESSION_COOKIE_HTTPONLY": True}
HOST = {**SECURE, "SESSION_COOKIE_PATH": "/", "SESSION_COOKIE_DOMAIN": None}
PREFIXES: dict[str, dict[str, Any]] = {
    "__secure-": SECURE,
    "__http-": HTTP,
    "__host-http-": {**HOST, **HTTP},
    "__host-": HOST,
}


def check_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    databases = kwargs.get("databases")
    found = [*_apps(), *_engine(databases), *_middleware(), *_messages(), *_settings()]
    found += [*_adoption(databases), *_cookie(), *_urls(), *_notices()]
    return [*found, *_tokens(databases), *_metrics(), *_purge(databases)]


def check_deployment(**kwargs: Any) -> list[checks.CheckMessage]:
    found = [*_deployed_engine(), *_deployed_cookie(), *_deployed_policy()]
    return [*found, *_deployed_notices()]


def _apps() -> Iterator[checks.CheckMessage]:
    needed = ("django.contrib.auth", "django.contrib.contenttypes")
    if missing := [app for app in needed if not apps.is_installed(app)]:
        for app in missing:
            yield _message("E011", app=app)
        return
    users = router.db_for_write(apps.get_model(settings.AUTH_USER_MODEL))
    for model in ("UserSession", "Ending"):
        sessions = router.db_for_write(apps.get_model("django_sessionkit", model))
        if users != sessions:
            yield _message("E014", users=users, sessions=sessions)
            return


def _engine(databases: Sequence[str] | None) -> Iterator[checks.CheckMessage]:
    engine = settings.SESSION_ENGINE
    try:
        store = import_string(f"{engine}.SessionStore")
    except (ImportError, ValueError) as error:
        yield _message("E001", engine=engine, error=error)
    else:
        if ENGINE not in _lineage(store):
            if RETURNING in settings.MIDDLEWARE:
                return
            # A warning for Django's: with errors, the tables could not be removed on the way back.
            name = "W012" if engine.startswith(DJANGOS_ENGINES) else "E002"
            yield _message(name, engine=engine)
            return
        for name, values in store.check(ask=bool(databases)):
            yield _message(name, **values)
        if conf.SESSIONKIT_ACTIVITY == "buffered":
            if not store.buffers:
                yield _message("E023", engine=engine)
            elif enqueue_of("carry_activity") is None:
                yield _message("W025")


def _middleware() -> Iterator[checks.CheckMessage]:
    order = [(path, {path, *_lineage(_imported(path))}) for path in settings.MIDDLEWARE]
    session = {MIDDLEWARE, ANY_MIDDLEWARE}
    sessions = [place for place, (_, lineage) in enumerate(order) if session & lineage]
    if not sessions:
        yield _message("E003")
        return
    session_middleware, lineage = order[sessions[0]]
    if len(sessions) > 1:
        yield _message("E004", middleware=", ".join(order[place][0] for place in sessions))
    elif MIDDLEWARE not in lineage and session_middleware != RETURNING:
        yield _message("W001", middleware=session_middleware)

    needs_session = {
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.RemoteUserMiddleware",
    }
    if settings.MESSAGE_STORAGE != "django.contrib.messages.storage.cookie.CookieStorage":
        needs_session.add(MESSAGES_MIDDLEWARE)
    if settings.CSRF_USE_SESSIONS:
        needs_session.add("django.middleware.csrf.CsrfViewMiddleware")
    for path, lineage in order[: sessions[0]]:
        if needs_session & lineage:
            yield _message("E005", middleware=path, session_middleware=session_middleware)
    for path, lineage in order[sessions[0] :]:
        # UpdateCacheMiddleware would cache an answer before the session middleware has marked it
        # as private, or as one that varies by cookie.
        if "django.middleware.cache.UpdateCacheMiddleware" in lineage:
            yield _message("W002", middleware=path, session_middleware=session_middleware)


def _messages() -> Iterator[checks.CheckMessage]:
    missing = []
    if not apps.is_installed(MESSAGES_APP):
        missing.append(f'"{MESSAGES_APP}" in INSTALLED_APPS')
    lineages = [{path, *_lineage(_imported(path))} for path in settings.MIDDLEWARE]
    if not any(MESSAGES_MIDDLEWARE in lineage for lineage in lineages):
        missing.append(f'"{MESSAGES_MIDDLEWARE}" in MIDDLEWARE')
    # Templates of Jinja2 have no context processors.
    engines: list[dict[str, Any]] = settings.TEMPLATES
    options = [each.get("OPTIONS", {}) for each in engines if each["BACKEND"] == DJANGOS_TEMPLATES]
    if options and not any(MESSAGES_PROCESSOR in each.get(PROCESSORS, ()) for each in options):
        missing.append(f'"{MESSAGES_PROCESSOR}" in the "{PROCESSORS}" of TEMPLATES')
    if missing:
        yield _message("W014", missing=", ".join(missing))


def _settings() -> Iterator[checks.CheckMessage]:
    wrong = set()
    for name, values in VALUES.items():
        value = getattr(conf, name)
        if isinstance(values, range):
            meant = f"a whole number from {values[0]} to {values[-1]}"
            makes_sense = type(value) is int and value in values  # not bool: True equals 1
        else:
            meant, is_meant = values
            makes_sense = is_meant(value)
        if not makes_sense:
            wrong.add(name)
            yield _message("E006", name=name, value=value, meant=meant)
    known = [name for name in dir(conf) if name.startswith("SESSIONKIT_")]
    for name in dir(settings):
        if name.startswith("SESSIONKIT_") and name not in known:
            nearest = get_close_matches(name, known, n=1, cutoff=0.8)
            yield _message("E007", name=name, known=" or ".join(nearest or known))

    if "SESSIONKIT_POLICY" not in wrong:
        yield from _policy()
    yield from _ages(wrong)
    if "pickle" in str(settings.SESSION_SERIALIZER).lower():
        yield _message("E008", serializer=settings.SESSION_SERIALIZER)
    if settings.SESSION_SAVE_EVERY_REQUEST:
        yield _message("W004")


def _ages(wrong: set[str]) -> Iterator[checks.CheckMessage]:
    age = settings.SESSION_COOKIE_AGE
    for name, shorter in AGES.items():
        value = getattr(conf, shorter)
        if shorter not in wrong and value is not None and value >= age:
            yield _message(name, age=age)


def _policy() -> Iterator[checks.CheckMessage]:
    policy = conf.SESSIONKIT_POLICY
    if wrong := _wrong_with(policy):
        yield _message("E013", policy=policy, wrong=wrong)
    elif policy not in NEVER_LOCK and not _has_our_pages():
        yield _message("W020", policy=policy)


def _wrong_with(path: str) -> str:
    """Return what is wrong with the dotted path of a function, or ""."""
    try:
        found = import_string(path)
    except (ImportError, ValueError) as error:
        return f"cannot be imported: {error}"
    return "" if callable(found) else "is not a function"


def _has_our_pages() -> bool:
    if not getattr(settings, "ROOT_URLCONF", None):
        return True  # a process of the site that has no pages at all
    return _has_url("django_sessionkit:session_limit")


def _has_url(name: str) -> bool:
    try:
        reverse(name)
    except NoReverseMatch:
        return False
    return True


def _adoption(databases: Sequence[str] | None) -> Iterator[checks.CheckMessage]:
    named = conf.SESSIONKIT_ADOPT_FROM
    for path in named if _are_engines(named) else ():
        if path == settings.SESSION_ENGINE:
            yield _message("W022", engine=path)
            continue
        try:
            engine = engine_of(path)
        except Exception as error:  # an app that is not installed, or whatever its modules raise
            yield _message("E015", engine=path, error=error)
            continue
        if databases and isinstance(engine, Table):
            table = engine.model._meta.db_table
            connection = connections[router.db_for_write(engine.model)]
            if table not in connection.introspection.table_names():
                yield _message("W021", engine=path, table=table)


def _cookie() -> Iterator[checks.CheckMessage]:
    names = {"SESSION_COOKIE_NAME": settings.SESSION_COOKIE_NAME}
    if _is_own_cookie(conf.SESSIONKIT_DEVICE_COOKIE):  # which is always HttpOnly
        names["SESSIONKIT_DEVICE_COOKIE"] = conf.SESSIONKIT_DEVICE_COOKIE or ""
    for name, cookie in names.items():
        for setting, value in PREFIXES.get(_prefix(cookie), {}).items():
            is_given = name != "SESSION_COOKIE_NAME" and setting == "SESSION_COOKIE_HTTPONLY"
            if not is_given and (getattr(settings, setting) or None) != value:
                yield _message("E009", name=name, cookie=cookie, setting=setting, value=value)
    if _samesite() == "none" and not settings.SESSION_COOKIE_SECURE:
        yield _message("E010")


def _urls() -> Iterator[checks.CheckMessage]:
    if getattr(settings, "ROOT_URLCONF", None) and sign_in_url() is None:
        yield _message("W015", url=settings.LOGIN_URL)


def _notices() -> Iterator[checks.CheckMessage]:
    if conf.SESSIONKIT_NOTICES and _are_notices(conf.SESSIONKIT_NOTICES):
        if not conf.SESSIONKIT_SITE_URL:
            yield _message("E016")
        # A worker without a URLconf could make no link, either.
        if not getattr(settings, "ROOT_URLCONF", None) or not _has_our_pages():
            yield _message("E017")


def _tokens(databases: Sequence[str] | None) -> Iterator[checks.CheckMessage]:
    path = conf.SESSIONKIT_TOKEN_CLAIMS
    if path and _is_text(path) and (wrong := _wrong_with(path)):
        yield _message("E019", path=path, wrong=wrong)
    if not _has_tokens():
        return
    if not (conf.SESSIONKIT_TOKEN_ISSUER or conf.SESSIONKIT_SITE_URL):
        yield _message("E018")
    if find_spec("jwt") is None:
        yield _message("E020")
    # Before the first migrate, there is no table.
    keys = SigningKey.objects.primary()
    if keys.db in (databases or ()):
        tables = connections[keys.db].introspection.table_names()
        if SigningKey._meta.db_table in tables and not keys.verifying().exists():
            yield _message("W023")


def _metrics() -> Iterator[checks.CheckMessage]:
    if apps.is_installed(METRICS) and find_spec("opentelemetry") is None:
        yield _message("E022", app=METRICS)


def _purge(databases: Sequence[str] | None) -> Iterator[checks.CheckMessage]:
    runs = PurgeRun.objects.primary()
    # On the machine of a developer, nobody need purge.
    if settings.DEBUG or runs.db not in (databases or ()) or not _is_our_engine():
        return
    day_ago = timezone.now() - timedelta(days=1)
    # The columns are named, for migrate runs this before it adds new ones.
    if (
        _is_older_than(day_ago, connections[runs.db])
        and UserSession.objects.primary().filter(pk__lt=since(day_ago)).exists()
        and not runs.filter(finished_at__gte=day_ago).exists()
    ):
        yield _message("W017")


def _is_our_engine() -> bool:
    try:
        return ENGINE in _lineage(import_string(f"{settings.SESSION_ENGINE}.SessionStore"))
    except (ImportError, ValueError):
        return False


def _is_older_than(moment: datetime, connection: BaseDatabaseWrapper) -> bool:
    """
    Tell whether this app was migrated before this moment. The sessions cannot say so: those that
    have moved here are older.
    """
    recorder = MigrationRecorder(connection)
    applied = recorder.migration_qs.filter(app="django_sessionkit", applied__lt=moment)
    return recorder.has_table() and applied.exists()


def _has_tokens() -> bool:
    """Tell whether the site says anything of tokens: by a setting, or by the URL of their keys."""
    if conf.SESSIONKIT_TOKEN_ISSUER or conf.SESSIONKIT_TOKEN_AUDIENCE:
        return True
    return bool(getattr(settings, "ROOT_URLCONF", None)) and _has_url(
        "django_sessionkit_tokens:jwks"
    )


def _deployed_engine() -> Iterator[checks.CheckMessage]:
    # Not without --deploy: for development and tests, one process is as it should be.
    if settings.SESSION_ENGINE == MEMORY:
        yield _message("W019", engine=MEMORY)


def _deployed_cookie() -> Iterator[checks.CheckMessage]:
    # Django's security.W010 to W015 say the same, on sites with Django's app or middleware.
    its_app, its_middleware = "django.contrib.sessions", ANY_MIDDLEWARE
    if its_app not in settings.INSTALLED_APPS and its_middleware not in settings.MIDDLEWARE:
        if settings.SESSION_COOKIE_SECURE is not True:
            yield _message("W005")
        if settings.SESSION_COOKIE_HTTPONLY is not True:
            yield _message("W006")
    if _samesite() in ("", "none"):
        yield _message("W007", samesite=settings.SESSION_COOKIE_SAMESITE)
    cookie = settings.SESSION_COOKIE_NAME
    if not _prefix(cookie):
        shared = settings.SESSION_COOKIE_DOMAIN or settings.SESSION_COOKIE_PATH != "/"
        yield _message("W008", cookie=cookie, prefix="__Secure-" if shared else "__Host-")


def _deployed_policy() -> Iterator[checks.CheckMessage]:
    if level := LEVELS.get(str(conf.SESSIONKIT_POLICY)):
        if settings.CSRF_USE_SESSIONS is not True:
            yield _message("W010", level=level)
        if settings.SESSION_EXPIRE_AT_BROWSER_CLOSE is not True:
            yield _message("W011", level=level)


def _deployed_notices() -> Iterator[checks.CheckMessage]:
    if conf.SESSIONKIT_NOTICES and str(conf.SESSIONKIT_SITE_URL).startswith("http:"):
        yield _message("W016", url=conf.SESSIONKIT_SITE_URL)


def _message(name: str, /, **values: object) -> checks.CheckMessage:
    text, hint = (part.format(**values) for part in MESSAGES[name])
    kind = checks.Error if name.startswith("E") else checks.Warning
    return kind(text, hint=hint, id=f"sessionkit.{name}")


def _imported(path: str) -> object:
    try:
        return import_string(path)
    except Exception:  # Django reports the error when it loads the middleware
        return None


def _lineage(found: object) -> set[str]:
    """
    Return the dotted paths of a class and of its bases. They are paths and not classes, because
    importing the classes to compare with fails on a site that lacks their app.
    """
    classes = getmro(found) if isinstance(found, type) else ()
    return {f"{each.__module__}.{each.__qualname__}" for each in classes}


def _prefix(cookie: str) -> str:
    return next((prefix for prefix in PREFIXES if cookie.lower().startswith(prefix)), "")


def _samesite() -> str:
    return (settings.SESSION_COOKIE_SAMESITE or "").lower()

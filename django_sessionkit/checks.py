"""
System checks: what ``manage.py check`` says about the settings of a site.

An error is what can not work, or what nobody can want; a warning is what works with less than it
could. No check reads a file or asks a server, but for W009, which only ``check --database`` does.
"""

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from inspect import getmro
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.db import router
from django.utils.module_loading import import_string

from django_sessionkit.conf import conf
from django_sessionkit.policy import HUNDRED_YEARS

# id: (what is wrong, what to type). An id keeps its meaning, and is never given to another check.
MESSAGES = {
    "E001": (
        "SESSION_ENGINE = {engine!r} can not be imported: {error}.",
        'Type SESSION_ENGINE = "django_sessionkit.backends.db", or install what yours needs.',
    ),
    "E002": (
        "SESSION_ENGINE = {engine!r} is no engine of django-sessionkit: no session can be ended.",
        'Type SESSION_ENGINE = "django_sessionkit.backends.db".',
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
        "In MIDDLEWARE, {middleware} comes before {session_middleware}, and needs the session.",
        'Move "{session_middleware}" up, before "{middleware}".',
    ),
    "E006": (
        "{name} = {value!r} is not {meant}.",
        "Type {meant}, or leave {name} out for its default.",
    ),
    "E007": (
        "There is no setting {name}.",
        "Type {known}, or take it out.",
    ),
    "E008": (
        "SESSION_SERIALIZER = {serializer!r} unpickles: who can write a session can run code.",
        'Type SESSION_SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer".',
    ),
    "E009": (
        "Browsers refuse a session cookie named {cookie!r} without {setting} = {value!r}.",
        "Type {setting} = {value!r}, or a SESSION_COOKIE_NAME without this prefix.",
    ),
    "E010": (
        'Browsers refuse a session cookie with SESSION_COOKIE_SAMESITE = "None" but not Secure.',
        "Type SESSION_COOKIE_SECURE = True.",
    ),
    "E011": (
        "{app} is not in INSTALLED_APPS, and django-sessionkit does not work without it.",
        'Add "{app}" to INSTALLED_APPS.',
    ),
    "E012": (
        "SESSION_CACHE_ALIAS = {alias!r} names no cache with one Redis behind it.",
        "Type the alias of a cache of django_redis.cache.RedisCache, without ShardClient.",
    ),
    "E013": (
        "SESSIONKIT_POLICY = {policy!r} {wrong}.",
        'Type "django_sessionkit.policy.aal2", say, or the path of a function of (user, request).',
    ),
    "E014": (
        "Users are written to the database {users!r}, and their sessions to {sessions!r}.",
        "Let DATABASE_ROUTERS send django_sessionkit to {users!r}: rows of the two are joined.",
    ),
    "W001": (
        "With {middleware}, no device is known, and use does not keep a session alive.",
        'Type "django_sessionkit.middleware.SessionMiddleware" in its place in MIDDLEWARE.',
    ),
    "W002": (
        "In MIDDLEWARE, {middleware} comes after {session_middleware}: it caches what is private.",
        'Move "{middleware}" up, before "{session_middleware}".',
    ),
    "W003": (
        "SESSIONKIT_TOUCH_INTERVAL is not below SESSION_COOKIE_AGE: a tenth of the age is used.",
        "Type SESSIONKIT_TOUCH_INTERVAL = 60, or leave it out.",
    ),
    "W004": (
        "SESSION_SAVE_EVERY_REQUEST is not needed: use keeps a session alive without it.",
        "Type SESSION_SAVE_EVERY_REQUEST = False, or leave it out.",
    ),
    # Of check_deployment().
    "W005": (
        "SESSION_COOKIE_SECURE is not True: the session cookie may cross the network in the clear.",
        "Type SESSION_COOKIE_SECURE = True.",
    ),
    "W006": (
        "SESSION_COOKIE_HTTPONLY is not True: a script in a page can read the session cookie.",
        "Type SESSION_COOKIE_HTTPONLY = True, or leave it out.",
    ),
    "W007": (
        "SESSION_COOKIE_SAMESITE = {samesite!r}: requests of other sites carry the session cookie.",
        'Type SESSION_COOKIE_SAMESITE = "Lax". If other sites embed yours, silence this.',
    ),
    "W008": (
        "SESSION_COOKIE_NAME = {cookie!r} has no prefix: other hosts can set it (ASVS 3.3.1).",
        'Type SESSION_COOKIE_NAME = "{prefix}sessionid". Everybody has to sign in once more.',
    ),
    "W010": (
        "CSRF_USE_SESSIONS is not True: NIST {level} wants a CSRF token to be tied to its session.",
        "Type CSRF_USE_SESSIONS = True. Who has a form open then has to load it once more.",
    ),
    "W011": (
        "SESSION_EXPIRE_AT_BROWSER_CLOSE is not True: NIST {level} wants cookies that go with it.",
        "Type SESSION_EXPIRE_AT_BROWSER_CLOSE = True.",
    ),
    # Of `check --database`, and of migrate.
    "W009": (
        "Redis may evict sessions when it is full: its maxmemory-policy is {policy!r}.",
        "Type CONFIG SET maxmemory-policy noeviction, or give the sessions a Redis of their own.",
    ),
}

ENGINE = "django_sessionkit.backends.base.SessionStore"
MIDDLEWARE = "django_sessionkit.middleware.SessionMiddleware"
ANY_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"  # ours is one, too

# Who has chosen one of these presets wants to be told what the level asks for besides timeouts.
LEVELS = {"django_sessionkit.policy.aal2": "AAL2", "django_sessionkit.policy.aal3": "AAL3"}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_full_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _are_paths(value: object) -> bool:
    paths = value if isinstance(value, (list, tuple)) else [None]
    return all(isinstance(path, str) and path.startswith("/") for path in paths)


# What makes sense, of every setting in conf.py: one of these whole numbers, or what is meant, and
# how to tell.
VALUES: dict[str, range | tuple[str, Callable[[object], bool]]] = {
    "SESSIONKIT_TOUCH_INTERVAL": range(1, HUNDRED_YEARS),
    "SESSIONKIT_TRUSTED_PROXIES": range(100),
    "SESSIONKIT_RETENTION": range(HUNDRED_YEARS),
    "SESSIONKIT_REDIS_PREFIX": ("a text", _is_full_text),
    "SESSIONKIT_POLICY": ("a text", _is_full_text),
    "SESSIONKIT_REAUTHENTICATION_URL": ("a text", _is_text),
    "SESSIONKIT_BACKGROUND": ('a list of paths that begin with "/"', _are_paths),
}

# What browsers ask of a cookie whose name begins like this, in whatever case: RFC 6265bis §4.1.3,
# and the draft of its successor ("layered cookies") for the two with Http.
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
    store = _engine(kwargs.get("databases"))
    return [*_apps(), *store, *_middleware(), *_settings(), *_cookie()]


def check_deployment(**kwargs: Any) -> list[checks.CheckMessage]:
    return [*_deployed_cookie(), *_deployed_policy()]


def _apps() -> Iterator[checks.CheckMessage]:
    needed = ("django.contrib.auth", "django.contrib.contenttypes")
    if missing := [app for app in needed if not apps.is_installed(app)]:
        for app in missing:
            yield _message("E011", app=app)
        return
    users, sessions = (
        router.db_for_write(apps.get_model(model))
        for model in (settings.AUTH_USER_MODEL, "django_sessionkit.UserSession")
    )
    if users != sessions:
        yield _message("E014", users=users, sessions=sessions)


def _engine(databases: Sequence[str] | None) -> Iterator[checks.CheckMessage]:
    engine = settings.SESSION_ENGINE
    try:
        store = import_string(f"{engine}.SessionStore")
    except (ImportError, ValueError) as error:
        yield _message("E001", engine=engine, error=error)
    else:
        if ENGINE not in _lineage(store):
            yield _message("E002", engine=engine)
            return
        for name, values in store.check(ask=bool(databases)):
            yield _message(name, **values)


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
    elif MIDDLEWARE not in lineage:
        yield _message("W001", middleware=session_middleware)

    needs_session = {
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.RemoteUserMiddleware",
    }
    if settings.MESSAGE_STORAGE != "django.contrib.messages.storage.cookie.CookieStorage":
        needs_session.add("django.contrib.messages.middleware.MessageMiddleware")
    if settings.CSRF_USE_SESSIONS:
        needs_session.add("django.middleware.csrf.CsrfViewMiddleware")
    for path, lineage in order[: sessions[0]]:
        if needs_session & lineage:
            yield _message("E005", middleware=path, session_middleware=session_middleware)
    for path, lineage in order[sessions[0] :]:
        # It sees an answer before this one has marked it as private, or as one that varies.
        if "django.middleware.cache.UpdateCacheMiddleware" in lineage:
            yield _message("W002", middleware=path, session_middleware=session_middleware)


def _settings() -> Iterator[checks.CheckMessage]:
    wrong = set()
    for name, values in VALUES.items():
        value = getattr(conf, name)
        if isinstance(values, range):
            meant = f"a whole number from {values[0]} to {values[-1]}"
            makes_sense = type(value) is int and value in values  # True would be 1
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
    interval, age = "SESSIONKIT_TOUCH_INTERVAL", settings.SESSION_COOKIE_AGE
    if interval not in wrong and getattr(conf, interval) >= age:
        yield _message("W003")
    if "pickle" in str(settings.SESSION_SERIALIZER).lower():
        yield _message("E008", serializer=settings.SESSION_SERIALIZER)
    if settings.SESSION_SAVE_EVERY_REQUEST:
        yield _message("W004")


def _policy() -> Iterator[checks.CheckMessage]:
    policy = conf.SESSIONKIT_POLICY
    try:
        found = import_string(policy)
    except (ImportError, ValueError) as error:
        yield _message("E013", policy=policy, wrong=f"can not be imported: {error}")
    else:
        if not callable(found):
            yield _message("E013", policy=policy, wrong="can not be called: it is no function")


def _cookie() -> Iterator[checks.CheckMessage]:
    cookie = settings.SESSION_COOKIE_NAME
    for setting, value in PREFIXES.get(_prefix(cookie), {}).items():
        if (getattr(settings, setting) or None) != value:
            yield _message("E009", cookie=cookie, setting=setting, value=value)
    if _samesite() == "none" and not settings.SESSION_COOKIE_SECURE:
        yield _message("E010")


def _deployed_cookie() -> Iterator[checks.CheckMessage]:
    # Where Django can tell that there are sessions it says these two: security.W010 to W015.
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


def _message(name: str, /, **values: object) -> checks.CheckMessage:
    text, hint = (part.format(**values) for part in MESSAGES[name])
    kind = checks.Error if name.startswith("E") else checks.Warning
    return kind(text, hint=hint, id=f"sessionkit.{name}")


def _imported(path: str) -> object:
    try:
        return import_string(path)
    except Exception:  # whatever it is, Django says it when it loads the middleware
        return None


def _lineage(found: object) -> set[str]:
    """
    Return the paths of a class and of those that it inherits from. Paths, for to import what is
    looked for would itself fail where an app is missing.
    """
    classes = getmro(found) if isinstance(found, type) else ()
    return {f"{each.__module__}.{each.__qualname__}" for each in classes}


def _prefix(cookie: str) -> str:
    return next((prefix for prefix in PREFIXES if cookie.lower().startswith(prefix)), "")


def _samesite() -> str:
    return (settings.SESSION_COOKIE_SAMESITE or "").lower()

"""
System checks: what ``manage.py check`` says about the settings of a site.

An error is what can not work, or does what nobody can want; a warning is what works with less than
it could. No check reads a file, a database or a store.
"""

import difflib
from collections.abc import Iterator
from inspect import getmro
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as Caution
from django.utils.module_loading import import_string

from django_sessionkit.conf import conf

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
        "{name} = {value!r} is not a whole number from {least} to {most}.",
        "Type a number, as in {name} = {example}, or leave it out for the default.",
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
        'Browsers refuse a session cookie with SESSION_COOKIE_SAMESITE = "None" that is not secure.',
        "Type SESSION_COOKIE_SECURE = True.",
    ),
    "E011": (
        "{app} is not in INSTALLED_APPS, and django-sessionkit does not work without it.",
        'Add "{app}" to INSTALLED_APPS.',
    ),
    "W001": (
        "With {middleware}, no device is known and no session is kept alive by being used.",
        'Type "django_sessionkit.middleware.SessionMiddleware" in its place in MIDDLEWARE.',
    ),
    "W002": (
        "In MIDDLEWARE, {middleware} comes after {session_middleware}, and caches one visitor's "
        "page for all.",
        'Move "{session_middleware}" down, after "{middleware}".',
    ),
    "W003": (
        "SESSIONKIT_TOUCH_INTERVAL is not below SESSION_COOKIE_AGE: a tenth of the age is used.",
        "Type SESSIONKIT_TOUCH_INTERVAL = 60, or leave it out.",
    ),
    "W004": (
        "SESSION_SAVE_EVERY_REQUEST is not needed: a session that is used stays alive without it.",
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
}

ENGINE = "django_sessionkit.backends.db", or install what yours needs.',
    ),
    "E002": (
        "SESSION_ENGINE is {engine!r}, which is no engine of django-sessionkit: no session can be "
        "listed or ended.",
        'Type SESSION_ENGINE = "django_sessionkit.backends.db".',
    ),
    "E003": (
        "MIDDLEWARE has no session middleware.",
        'Add "django_sessionkit.middleware.SessionMiddleware" to MIDDLEWARE, before what needs '
        "the session, and take out any other session middleware.",
    ),
    "E004": (
        "MIDDLEWARE has more than one session middleware: {middleware}. Each would load and save "
        "the session, and the cookie, by itself.",
        'Leave only "django_sessionkit.middleware.SessionMiddleware" in MIDDLEWARE.',
    ),
    "E005": (
        "{middleware} needs the session, and comes before {session_middleware} in MIDDLEWARE.",
        'Move "{session_middleware}" up in MIDDLEWARE, before "{middleware}".',
    ),
    "E006": (
        "{name} is {value!r}, which is not a whole number from {least} to {most}.",
        "Type a number such as {name} = {example}, or leave the setting out for its default.",
    ),
    "E007": (
        "There is no setting {name}.",
        "{advice}",
    ),
    "E008": (
        "SESSION_SERIALIZER is {serializer!r}: to unpickle a session is to run whatever somebody "
        "wrote there.",
        'Type SESSION_SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer".',
    ),
    "E009": (
        "Browsers refuse the session cookie: the name {cookie!r} asks for {setting} = {value!r}.",
        "Type {setting} = {value!r}, or a SESSION_COOKIE_NAME without that prefix.",
    ),
    "E010": (
        'Browsers refuse the session cookie: SESSION_COOKIE_SAMESITE = "None" asks for '
        "SESSION_COOKIE_SECURE = True.",
        "Type SESSION_COOKIE_SECURE = True.",
    ),
    "E011": (
        "{app} is not in INSTALLED_APPS: django-sessionkit lists the sessions of its users.",
        'Add "{app}" to INSTALLED_APPS.',
    ),
    "W001": (
        "MIDDLEWARE has {middleware} in place of the session middleware of django-sessionkit: no "
        "device and no activity is known, and a visitor is not told why a session has ended.",
        'Put "django_sessionkit.middleware.SessionMiddleware" in its place.',
    ),
    "W002": (
        "{middleware} comes after {session_middleware} in MIDDLEWARE: it caches a page before that "
        'has said "Vary: Cookie", so that one visitor can be shown the page of another.',
        'Move "{middleware}" up in MIDDLEWARE, before "{session_middleware}".',
    ),
    "W003": (
        "SESSIONKIT_TOUCH_INTERVAL, {interval} seconds, is as long as SESSION_COOKIE_AGE or longer: "
        "a tenth of that is what is used.",
        "Type SESSIONKIT_TOUCH_INTERVAL = 60, or leave the setting out.",
    ),
    "W004": (
        "SESSION_SAVE_EVERY_REQUEST = True writes every session on every request. A session that "
        "is used stays alive without it: every SESSIONKIT_TOUCH_INTERVAL seconds, at little cost.",
        "Type SESSION_SAVE_EVERY_REQUEST = False, or leave the setting out.",
    ),
    # Of check_deployment().
    "W005": (
        "SESSION_COOKIE_SECURE is not True: the session cookie crosses the network in the clear "
        "whenever a browser asks for an http:// page.",
        "Type SESSION_COOKIE_SECURE = True.",
    ),
    "W006": (
        "SESSION_COOKIE_HTTPONLY is not True: a script that gets into a page can read the session "
        "cookie.",
        "Type SESSION_COOKIE_HTTPONLY = True, or leave the setting out.",
    ),
    "W007": (
        "SESSION_COOKIE_SAMESITE is {samesite!r}: browsers may send the session cookie along with "
        "requests that other sites make.",
        'Type SESSION_COOKIE_SAMESITE = "Lax", or silence this if other sites embed your pages.',
    ),
    "W008": (
        "The name of the session cookie, {cookie!r}, has no prefix: a page of a sibling domain, or "
        "of this one over http://, can put a session cookie of its own into a browser (ASVS 3.3.1).",
        'Type SESSION_COOKIE_NAME = "{prefix}sessionid". Everybody has to sign in again, once.',
    ),
}  # fmt: skip

ENGINE = "django_sessionkit.backends.base.SessionStore"
MIDDLEWARE = "django_sessionkit.middleware.SessionMiddleware"
ANY_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"  # ours is one, too

HUNDRED_YEARS = 100 * 365 * 24 * 60 * 60

# A value that makes sense, of every setting in conf.py.
RANGES = {
    "SESSIONKIT_TOUCH_INTERVAL": range(HUNDRED_YEARS),
    "SESSIONKIT_TRUSTED_PROXIES": range(100),
    "SESSIONKIT_RETENTION": range(HUNDRED_YEARS),
}

# What browsers ask of a cookie whose name begins like this, in capitals or not (RFC 6265bis
# §4.1.3, and for "Http" the layered cookies that follow it).
SECURE = {"SESSION_COOKIE_SECURE": True}
HTTP = {**SECURE, "SESSION_COOKIE_HTTPONLY": True}
HOST = {**SECURE, "SESSION_COOKIE_PATH": "/", "SESSION_COOKIE_DOMAIN": None}
PREFIXES: dict[str, dict[str, Any]] = {
    "__secure-": SECURE,
    "__http-": HTTP,
    "__host-http-": {**HOST, **HTTP},
    "__host-": HOST,
}


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    return [*_apps(), *_engine(), *_middleware(), *_settings(), *_cookie()]


def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    return [*_deployed_cookie()]


def _apps() -> Iterator[CheckMessage]:
    for app in ("django.contrib.auth", "django.contrib.contenttypes"):
        if not apps.is_installed(app):
            yield _message("E011", app=app)


def _engine() -> Iterator[CheckMessage]:
    engine = settings.SESSION_ENGINE
    try:
        store = import_string(f"{engine}.SessionStore")
    except (ImportError, ValueError) as error:
        yield _message("E001", engine=engine, error=error)
    else:
        if ENGINE not in _lineage(store):
            yield _message("E002", engine=engine)


def _middleware() -> Iterator[CheckMessage]:
    order = [(path, _lineage(_imported(path))) for path in settings.MIDDLEWARE]
    sessions = [path for path, lineage in order if ANY_MIDDLEWARE in lineage]
    if not sessions:
        yield _message("E003")
        return
    if len(sessions) > 1:
        yield _message("E004", middleware=", ".join(sessions))
    elif MIDDLEWARE not in _lineage(_imported(sessions[0])):
        yield _message("W001", middleware=sessions[0])

    needs_session = {
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.RemoteUserMiddleware",
    }
    if settings.MESSAGE_STORAGE != "django.contrib.messages.storage.cookie.CookieStorage":
        needs_session.add("django.contrib.messages.middleware.MessageMiddleware")
    if settings.CSRF_USE_SESSIONS:
        needs_session.add("django.middleware.csrf.CsrfViewMiddleware")
    place = settings.MIDDLEWARE.index(sessions[0])
    for path, lineage in order[:place]:
        if not needs_session.isdisjoint(lineage):
            yield _message("E005", middleware=path, session_middleware=sessions[0])
    for path, lineage in order[place:]:
        if "django.middleware.cache.UpdateCacheMiddleware" in lineage:
            yield _message("W002", middleware=path, session_middleware=sessions[0])


def _settings() -> Iterator[CheckMessage]:
    for name, values in RANGES.items():
        value = getattr(conf, name)
        if type(value) is not int or value not in values:  # True is 1, and not meant
            least, most = values[0], values[-1]
            yield _message(
                "E006", name=name, value=value, least=least, most=most, example=max(least, 1)
            )
    known = [name for name in dir(conf) if name.startswith("SESSIONKIT_")]
    for name in dir(settings):
        if name.startswith("SESSIONKIT_") and name not in known:
            meant = difflib.get_close_matches(name, known, n=1)
            advice = f"Did you mean {meant[0]}?" if meant else f"There are: {', '.join(known)}."
            yield _message("E007", name=name, advice=advice)

    interval, age = conf.SESSIONKIT_TOUCH_INTERVAL, settings.SESSION_COOKIE_AGE
    if isinstance(interval, int) and interval >= age:
        yield _message("W003", interval=interval)
    if "pickle" in str(settings.SESSION_SERIALIZER).lower():
        yield _message("E008", serializer=settings.SESSION_SERIALIZER)
    if settings.SESSION_SAVE_EVERY_REQUEST:
        yield _message("W004")


def _cookie() -> Iterator[CheckMessage]:
    cookie = settings.SESSION_COOKIE_NAME
    for setting, value in PREFIXES.get(_prefix(cookie), {}).items():
        if (getattr(settings, setting) or None) != value:
            yield _message("E009", cookie=cookie, setting=setting, value=value)
    if _samesite() == "none" and not settings.SESSION_COOKIE_SECURE:
        yield _message("E010")


def _deployed_cookie() -> Iterator[CheckMessage]:
    # Django has the same two, where it knows that there are sessions: security.W010 to W015.
    if (
        not apps.is_installed("django.contrib.sessions")
        and ANY_MIDDLEWARE not in settings.MIDDLEWARE
    ):
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


def _message(id_: str, **values: object) -> CheckMessage:
    text, hint = (part.format(**values) for part in MESSAGES[id_])
    kind = Error if id_.startswith("E") else Caution
    return kind(text, hint=hint, id=f"sessionkit.{id_}")


def _imported(path: str) -> object:
    try:
        return import_string(path)
    except Exception:  # whatever it is, Django says it when it loads the middleware
        return None


def _lineage(found: object) -> set[str]:
    """
    Return the paths of a class and of those that it inherits from. Names, because to import what
    is looked for would itself fail where an app is missing.
    """
    classes = getmro(found) if isinstance(found, type) else ()
    return {f"{each.__module__}.{each.__qualname__}" for each in classes}


def _prefix(cookie: str) -> str:
    return next((prefix for prefix in PREFIXES if cookie.lower().startswith(prefix)), "")


def _samesite() -> str:
    return (settings.SESSION_COOKIE_SAMESITE or "").lower()

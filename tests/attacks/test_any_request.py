"""
Whatever a request says, in whatever state its session is: no error, no way to another host, no
cookie of ours in a cache, no line in a log that the visitor has written, and no session key there.
"""

import logging
import re
from urllib.parse import quote_from_bytes

import hypothesis
import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client
from django.utils.http import url_has_allowed_host_and_scheme
from hypothesis import Phase, example, given
from hypothesis import strategies as st

from django_sessionkit.backends.sealing import digest_of
from django_sessionkit.models import UserSession
from django_sessionkit.policy import Policy
from tests import policies, store
from tests.attacks.requests import Sent, by_asgi, by_wsgi
from tests.browsers import PAGE, browse_as
from tests.pages import LIMIT, LIST, OTHERS, PROVE
from tests.people import CHROME, FIREFOX, key_of, post_sign_in
from tests.renewals import AFTER, DUE, GRACE, renewed, seen
from tests.store import SessionStore, later

pytestmark = [pytest.mark.django_db, pytest.mark.site("tests.calls")]

# Sessions, in every state. Each function returns their keys, that of the request first, and how
# many seconds later the request comes.


def stranger():
    return [], 0


def visitor():
    session = SessionStore()
    session["cart"] = "teapot"
    session.save()
    return [session.session_key], 0


def user(wait=0, **rules):
    policies.chosen = Policy(**rules)
    alice = User.objects.get(username="alice")
    session = SessionStore()
    session[SESSION_KEY] = str(alice.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = alice.get_session_auth_hash()
    session.save()
    return [session.session_key], wait


def due():
    return user(wait=100)


def ended():
    keys, _wait = user()
    UserSession.objects.revoke()
    return keys, 0


def expired():
    return user(wait=700, idle=600)


def locked():
    return user(wait=700, idle=600, lock=True)


def moved():
    policies.chosen = Policy(bind=("browser", "network"), on_change="ask")
    browser = Client(headers=PAGE | {"user-agent": CHROME}, REMOTE_ADDR="203.0.113.7")
    post_sign_in(browser)
    return [key_of(browser)], 0


def waiting():
    user(limit=1, on_limit="ask")
    return user(limit=1, on_limit="ask")


def to_be_renewed():
    return user(wait=DUE, renew_after=AFTER)


def former():
    policies.chosen = Policy(renew_after=AFTER, renew_grace=GRACE)
    browser = Client(headers=PAGE)
    post_sign_in(browser)
    old = renewed(browser)
    return [old, key_of(browser)], DUE + 10


def reused():
    keys, _wait = former()
    seen(browse_as(Client(), keys[1]))
    return keys, DUE + 90


def garbage():
    keys, _wait = user()
    store.tamper(digest_of(keys[0]), b"garbage" * 9)
    return keys, 0


STATES = [stranger, visitor, user, due, ended, expired, locked, moved, waiting]
STATES += [to_be_renewed, former, reused, garbage]

# Requests. Servers let no line break and no NUL into a header; in a path it can be as %0A.

PATHS = ["/", "/whoami/", "/awhoami/", "/read/", "/aread/", "/write/", "/awrite/", "/forbidden/"]
PATHS += ["/fail/", "/pay/", "/apay/", "/poll/", "/apoll/", "/login/", "/logout/", "/admin/"]
PATHS += [
    "/overwrite/",
    "/aoverwrite/",
    "/count/",
    "/nowhere",
    "//evil.example/",
    "/\\evil.example/",
]
PATHS += [LIST, OTHERS, PROVE, LIMIT, f"{LIST}{'0' * 32}/end/"]
METHODS = [
    "GET",
    "GET",
    "POST",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "PATCH",
    "get",
    "QUERY",
]
BYTES = st.binary(max_size=40).map(lambda value: bytes(b for b in value if b not in b"\r\n\0"))
SAID = st.sampled_from(
    [
        b"1", b"text/html", b"*/*", b"application/json", b"text/html;q=1;a*=foo'x'%41",
        b"navigate", b"cors", b"prefetch", b"192.0.2.1", b"::1", b"192.0.2.1:x, [::1", b"\xff\xfe",
        b"\x1b[2J", b"\x7f", b"unknown", FIREFOX.encode(), CHROME.encode(),
        b"//evil.example/", b"http://evil.example/", b"http://testserver/read/", b"\xe2\x80\xae",
        b"multipart/form-data; boundary=", b"application/x-www-form-urlencoded",
        b"text/plain; charset=utf-7", b"a/b;" * 3000, b"X" * 20_000,
    ]
)  # fmt: skip
NAMES = ["Accept", "Accept-Language", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-Dest"]
NAMES += ["X-Forwarded-For", "User-Agent", "X-Background-Request", "Sec-Purpose", "Referer"]
NAMES += ["Origin", "Content-Type", "X-CSRFToken", "X-Requested-With"]
# Django itself raises an error for such a Content-Type, before anybody else sees the request.
HEADERS = st.lists(
    st.tuples(st.sampled_from(NAMES), SAID | SAID | BYTES).filter(
        lambda header: header[0] != "Content-Type" or b"*=" not in header[1]
    ),
    max_size=5,
)
# KEY stands for the key of the session. What comes round it is odd.
COOKIES = st.sampled_from(
    [
        b"sessionid=KEY", b"sessionid=KEY", b"sessionid=KEY", b' sessionid = "KEY" ; a',
        b"sessionid=KEY; sessionid=KEY", b"sessionid=KEY; sessionid=" + b"a" * 32,
        b"sessionid=" + b"b" * 32, b"sessionid=KEY\xff", b"\xa0sessionid=KEY", b"sessionid=KEY,a=b",
        b"csrftoken=KEY", b"messages=KEY; sessionid=KEY", b"sessionid", b"=KEY",
        b"sessionid=KEY\x01",
        b"sessionid=" + b"KEY" * 9, b"a=" + b";" * 9000, b"sessionid=" + b"\xc3" * 9000,
        b'sessionid="\\015\\012KEY"', b"messages=\xff; csrftoken=\xff", b"__proto__=1; $Version=1",
    ]
)  # fmt: skip
QUERIES = st.sampled_from(
    [b"", b"", b"next=//evil.example/", b"next=/\\evil.example", b"next=%0d%0aX:y", b"next=%ff%00"]
)
BODIES = st.sampled_from(
    [
        b"", b"", b"cart=kettle", b"next=https://evil.example&password=x&username=x",
        b"%ff=%00&\xff",
        b"to=//evil.example&fields=%ff&obstacle=x&password=secret", b"session=\x00&session=x",
        b"sign_out=1", b"a=1&" * 1500, b"--x\r\n",
    ]
)  # fmt: skip
KEY = ("Cookie", b"sessionid=KEY")
# Mostly requests that get past Django and to a view, with the session.
MOSTLY = st.sampled_from([True, True, True, False])
SENT = st.builds(
    lambda method, path, query, headers, cookies, body: Sent(
        method, path, query, headers + [("Cookie", cookie) for cookie in cookies], body
    ),
    MOSTLY.flatmap(lambda usual: st.sampled_from(METHODS[: 3 if usual else None])),
    MOSTLY.flatmap(
        lambda usual: (
            st.sampled_from(PATHS)
            if usual
            else BYTES.map(lambda value: f"/{quote_from_bytes(value, safe='/.')}")
        )
    ),
    QUERIES | BYTES.map(lambda value: value.replace(b" ", b"")),
    HEADERS,
    MOSTLY.flatmap(
        lambda usual: st.just([KEY[1]]) if usual else st.lists(COOKIES | BYTES, max_size=3)
    ),
    BODIES | BYTES,
)


class Lines(logging.Handler):
    """Everything that is logged, as a file has it."""

    def __init__(self):
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self.lines = []

    def emit(self, record):
        self.lines.append((record.getMessage(), self.format(record)))


@pytest.fixture
def lines():
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def stays_connected(monkeypatch):
    """Django would close the connection, and with it the transaction of the test."""
    monkeypatch.setattr(BaseDatabaseWrapper, "close_if_unusable_or_obsolete", lambda self: None)


@pytest.mark.usefixtures("alice", "stays_connected")
@pytest.mark.parametrize("send", [by_wsgi, by_asgi])
@pytest.mark.parametrize("proxies", [0, 1])
@pytest.mark.standard("ASVS-14.3.2", "ASVS-3.3.4", "ASVS-3.7.2")
def test_any_request_in_any_state_gets_an_ordinary_answer(policy, settings, lines, send, proxies):
    policy()
    settings.SESSIONKIT_TRUSTED_PROXIES = proxies

    @hypothesis.settings(
        max_examples=150,
        phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes
    )
    @given(st.sampled_from(STATES), SENT)
    @example(ended, Sent("GET", "/whoami/", b"", [KEY, ("Accept", b"text/html;a*=foo'x'%41")]))
    @example(visitor, Sent("GET", LIMIT, b"next=//evil.example/", [KEY]))
    @example(moved, Sent("GET", "/whoami/", b"%0A", [KEY, ("User-Agent", b"\x1b[2J bot")]))
    @example(garbage, Sent("GET", "/read/", b"", [KEY, ("X-Forwarded-For", b"192.0.2.1:x")]))
    def check(state, sent):
        UserSession.objects.all().delete()
        lines.clear()
        keys, wait = state()
        key = keys[0].encode() if keys else b"c" * 32
        headers = [(name, value.replace(b"KEY", key)) for name, value in sent.headers]
        with later(wait):
            answer = send(sent._replace(headers=headers))
        check_answer(answer, sent.path)
        given = [re.match("sessionid=(.*?);", each) for each in answer.all("set-cookie")]
        secrets = [*keys, *[match[1] for match in given if match and match[1] != '""']]
        check_log(lines, secrets)
        assert not [key for key in keys if key.encode() in answer.body]

    check()


def check_answer(answer, path):
    assert answer.status < 500 or (path, answer.status) == ("/fail/", 500)
    for location in answer.all("location"):
        assert url_has_allowed_host_and_scheme(location, {"testserver"}), location
    if any(cookie.startswith("sessionid=") for cookie in answer.all("set-cookie")):
        said = {each.strip() for value in answer.all("cache-control") for each in value.split(",")}
        assert {"no-store", "private"} <= said
        assert "Cookie" in [
            each.strip() for value in answer.all("vary") for each in value.split(",")
        ]


def check_log(lines, secrets):
    for message, whole in lines:
        assert message.isprintable(), repr(message)
        assert not [secret for secret in secrets if secret in whole], message

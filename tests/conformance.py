"""
The requirements of OWASP and NIST for sessions: whose job each of them is, and which tests show it.

A test names the requirements that it shows: ``@pytest.mark.standard("ASVS-7.2.3")``. ``python -m
tests.conformance`` reads these marks and prints the tests of every requirement, for every store.
With ``--write``, the command makes docs/conformance.md. With ``--run``, the command runs those
tests on the store of this leg (see conftest.py) and says which requirements hold there.
"""

import argparse
import contextlib
import io
import sys
from collections import defaultdict
from typing import NamedTuple

import pytest

from tests.servers import PROJECT

DOCUMENT = PROJECT / "docs" / "conformance.md"

# The legs that run all tests, as conftest.py knows them: the database, and the engine. The leg of
# Valkey runs those of the Redis engine itself, and that in memory, which is not for sites, fewer.
LEGS = {
    "SQLite": ("sqlite", "db"),
    "PostgreSQL": ("postgresql", "db"),
    "MariaDB": ("mysql", "db"),
    "Redis": ("sqlite", "redis"),
}

# Whose job it is.
KIT, SITE, BOTH = "the kit's", "yours", "both"


class Requirement(NamedTuple):
    id: str
    level: str
    whose: str
    asks: str  # in our words
    answer: str


# The tests that show each requirement, and the legs that run each test.
Shown = dict[str, dict[str, set[str]]]


def shown_by(item: pytest.Item) -> list[str]:
    """Return the ids of the requirements that a test says it shows."""
    names: list[str] = []
    for mark in item.iter_markers("standard"):
        if not mark.args or not set(mark.args) <= set(REQUIREMENTS):
            message = "takes requirements that are in the CATALOGUE of tests/conformance.py, not"
            raise pytest.UsageError(f"{item.nodeid}: the mark {message} {mark.args}")
        names += mark.args
    return names


# The tests.


class Collector:
    """A plugin of pytest that reads the marks."""

    def __init__(self) -> None:
        self.shown: Shown = defaultdict(lambda: defaultdict(set))

    @pytest.hookimpl(tryfirst=True)  # before conftest.py leaves out the tests of other legs
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        from tests.conftest import left_out

        for item in items:
            marks = {mark.name for mark in item.iter_markers()}
            legs = {name for name, leg in LEGS.items() if not marks & left_out(*leg)}
            for name in shown_by(item):
                self.shown[name][item.nodeid.partition("[")[0]] |= legs


def collect() -> Shown:
    """Let pytest collect all tests, but run none. Return which requirements they show."""
    collector, said = Collector(), io.StringIO()
    with contextlib.redirect_stdout(said):
        status = pytest.main(["--collect-only", "-q"], plugins=[collector])
    if status != pytest.ExitCode.OK:
        sys.exit(said.getvalue())
    return collector.shown


class Runner:
    """A plugin of pytest that runs only the tests with marks, and notes which of them fail."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.tests: dict[str, set[str]] = defaultdict(set)
        self.failed: dict[str, set[str]] = defaultdict(set)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.names = {item.nodeid: shown_by(item) for item in items}
        items[:] = [item for item in items if self.names[item.nodeid]]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name in self.names[report.nodeid]:
            self.tests[name].add(report.nodeid)
            if not report.passed:
                self.failed[name].add(report.nodeid)


def run(arguments: list[str]) -> int:
    """Run the tests that show a requirement, and say which requirements hold."""
    runner = Runner()
    status = pytest.main(["-q", *arguments], plugins=[runner])
    for name in REQUIREMENTS:
        if failed := runner.failed[name]:
            say(f"{name:20} FAILED: {' '.join(sorted(failed))}")
        elif count := len(runner.tests[name]):
            say(f"{name:20} passed: {count}")
        else:
            say(f"{name:20} no test on this leg")
    return int(status)


# The tables.


def cell(tests: dict[str, set[str]], leg: str) -> str:
    """Return how many of these tests a leg runs; "once" if SQLite stands for all legs."""
    if count := sum(leg in legs for legs in tests.values()):
        return str(count)
    return "once" if {"SQLite"} in tests.values() else "-"


def matrix(shown: Shown) -> str:
    lines = []
    for name, requirement in REQUIREMENTS.items():
        tests = shown.get(name, {})
        cells = ", ".join(f"{leg} {cell(tests, leg)}" for leg in LEGS)
        lines.append(f"{name} ({requirement.whose}): {cells}")
        lines += [f"    {test}" for test in sorted(tests)]
    return "\n".join(lines)


def document(shown: Shown) -> str:
    """Return docs/conformance.md: its introduction as it is, and new tables."""
    parts = [DOCUMENT.read_text().partition("\n## ")[0].strip()]
    for heading, requirements in CATALOGUE.items():
        columns = ["", "level", "asks for", "whose job", *LEGS]
        table = [columns, ["---"] * len(columns)]
        for name, level, whose, asks, answer in requirements:
            tests = shown.get(name, {})
            link = f"[{name}](#{name.lower().replace('.', '')})" if tests else name
            cells = [cell(tests, leg) for leg in LEGS]
            table.append([link, level, asks, f"**{whose.capitalize()}.** {answer}", *cells])
        rows = "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in table)
        parts.append(f"## {heading}\n\n{rows}")
    parts.append("## The tests")
    for name in filter(shown.get, REQUIREMENTS):
        parts += [f"### {name}", "\n".join(f"- `{test}`" for test in sorted(shown[name]))]
    return "\n\n".join(parts) + "\n"


def faults(shown: Shown) -> list[str]:
    """Return what is wrong: requirements without a test, and a document that is out of date."""
    found = []
    for name, _level, whose, _asks, _answer in REQUIREMENTS.values():
        bare = [leg for leg in LEGS if cell(shown.get(name, {}), leg) == "-"]
        if bare and whose != SITE:
            found.append(f"{name} ({whose}): no test shows it on {', '.join(bare)}.")
    if DOCUMENT.read_text() != document(shown):
        path = DOCUMENT.relative_to(PROJECT)
        found.append(f"{path} is out of date, type: make conformance CONFORMANCE_ARGS=--write")
    return found


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--write", action="store_true", help="make docs/conformance.md")
    run_help = "run the tests, on this leg; what follows is for pytest"
    either.add_argument("--run", nargs=argparse.REMAINDER, metavar="ARGUMENT", help=run_help)
    arguments = parser.parse_args()
    if arguments.run is not None:
        return run(arguments.run)
    shown = collect()
    if arguments.write:
        DOCUMENT.write_text(document(shown))
    else:
        say(matrix(shown))
    found = faults(shown)
    sys.stderr.writelines(f"{fault}\n" for fault in found)
    return 1 if found else 0


# The requirements of the standards.

CATALOGUE = {
    "OWASP ASVS 5.0, chapter 7: session management": [
        Requirement(
            "ASVS-7.1.1",
            "2",
            BOTH,
            "how long a session may be idle, and how long it may live, written down, with the "
            "reasons for any deviation from NIST",
            "`manage.py sessionpolicy` writes it down, from the policy in force. To choose it, and "
            "to give reasons, is yours.",
        ),
        Requirement(
            "ASVS-7.1.2",
            "2",
            BOTH,
            "how many sessions an account may have at a time, and what happens then, written down",
            "`manage.py sessionpolicy` writes it down; `limit` and `on_limit` of the policy are "
            "what happens. To choose them is yours.",
        ),
        Requirement(
            "ASVS-7.1.3",
            "2",
            SITE,
            "systems that share sign-ins, and how their sessions end together, written down",
            "The package knows nothing of identity providers. `revoke()` ends what one of them "
            "says has ended.",
        ),
        Requirement(
            "ASVS-7.2.1",
            "1",
            KIT,
            "only the server decides whether a token is good",
            "A cookie is a key and nothing else. Whose it is, and until when, is on the server.",
        ),
        Requirement(
            "ASVS-7.2.2",
            "1",
            KIT,
            "tokens that are made anew, not fixed secrets",
            "Every session has a key of its own, which no client can choose.",
        ),
        Requirement(
            "ASVS-7.2.3",
            "1",
            KIT,
            "unique tokens from a cryptographic random source, of at least 128 bits",
            "160 bits from the operating system. A key that is taken is not written over.",
        ),
        Requirement(
            "ASVS-7.2.4",
            "1",
            KIT,
            "a new token on signing in and on proving again who one is; the old one ends",
            "By `login()`, and by the page that asks for the password again. A page of your own "
            "calls `request.session.reauthenticate()`, which does it.",
        ),
        Requirement(
            "ASVS-7.3.1",
            "2",
            KIT,
            "an end after inactivity",
            "By `idle` of the policy, and by `SESSION_COOKIE_AGE` in any case. The store and the "
            "server's clock decide, not the cookie.",
        ),
        Requirement(
            "ASVS-7.3.2",
            "2",
            KIT,
            "an end after a longest time",
            "By `absolute` of the policy: 30 days, or the longer age that the site asks for, "
            "unless you say otherwise; 12 hours for staff. Only proving again who one is begins it "
            "anew.",
        ),
        Requirement(
            "ASVS-7.4.1",
            "1",
            KIT,
            "a session that was ended or has expired is of no use to anybody",
            "At once. A request that is under way cannot write it back; what a store brings back "
            "ends with its next write of activity.",
        ),
        Requirement(
            "ASVS-7.4.2",
            "1",
            KIT,
            "sessions end when their account is disabled or deleted",
            "At once, and for good: an account that is enabled again does not get them back. What "
            "sends no signal (`update()`, SQL) is noticed by the next write of activity, or by "
            "the purge.",
        ),
        Requirement(
            "ASVS-7.4.3",
            "2",
            BOTH,
            "an offer to end the other sessions after a change of any factor",
            "After a change of the password the others end by themselves. After other changes, "
            "call `other_than(request).revoke()`, or lead to the list of devices.",
        ),
        Requirement(
            "ASVS-7.4.4",
            "2",
            SITE,
            "a sign-out that can be seen on every page",
            "Put it on yours, with Django's `LogoutView`.",
        ),
        Requirement(
            "ASVS-7.4.5",
            "2",
            KIT,
            "administrators can end the sessions of one user, or of all",
            "In the admin, with a permission of its own, and by `revoke()`.",
        ),
        Requirement(
            "ASVS-7.5.1",
            "2",
            BOTH,
            "proving again who one is before e-mail, telephone or factors are changed",
            "`@recent_authentication_required` asks. To put it on your views is yours.",
        ),
        Requirement(
            "ASVS-7.5.2",
            "2",
            KIT,
            "users see their sessions and end them, having proved again who they are",
            "The list of devices. To end other sessions takes a proof that is no older than "
            "`recent` of the policy.",
        ),
        Requirement(
            "ASVS-7.5.3",
            "3",
            BOTH,
            "proving again who one is before highly sensitive transactions",
            "`@recent_authentication_required(max_age=60)`, on the views that you find sensitive.",
        ),
        Requirement(
            "ASVS-7.6.1",
            "2",
            SITE,
            "sessions here and at an identity provider end as it is written down",
            "The package counts from the sign-in at your site, whatever a provider says.",
        ),
        Requirement(
            "ASVS-7.6.2",
            "2",
            BOTH,
            "no session without consent or an action of the user",
            "Looking at pages makes none, and no page of ours signs anybody in. What your views "
            "and middlewares write (`RemoteUserMiddleware` signs in) is yours.",
        ),
    ],
    "OWASP ASVS 5.0, other chapters": [
        Requirement(
            "ASVS-1.5.2",
            "2",
            KIT,
            "what others may have written is not unpickled",
            "JSON, and only after it was authenticated. `sessionkit.E008` refuses a serializer "
            "that pickles.",
        ),
        Requirement(
            "ASVS-2.4.1",
            "2",
            BOTH,
            "automation can neither fill nor exhaust anything",
            "Visitors and malformed cookies leave nothing in a store. To limit how often somebody "
            "calls a view that writes, or signs in, is yours.",
        ),
        Requirement(
            "ASVS-3.2.2",
            "1",
            KIT,
            "text is shown as text",
            "What a visitor sends is escaped on every page of ours, the admin's included.",
        ),
        Requirement(
            "ASVS-3.3.1",
            "1",
            BOTH,
            "cookies are `Secure`, and their names begin with `__Host-` or `__Secure-`",
            "Two settings, which are yours; `manage.py check --deploy` asks for them "
            "(`sessionkit.W005`, `sessionkit.W008`).",
        ),
        Requirement(
            "ASVS-3.3.2",
            "2",
            KIT,
            "`SameSite` as the purpose of a cookie has it",
            "`Lax`, or what `SESSION_COOKIE_SAMESITE` says; `sessionkit.W007` warns of none.",
        ),
        Requirement(
            "ASVS-3.3.3",
            "2",
            BOTH,
            "`__Host-` where a cookie is not meant for other hosts",
            "The name is yours to set (`sessionkit.W008`). It is read so that no other name passes "
            "for it, and two different cookies of that name count as none.",
        ),
        Requirement(
            "ASVS-3.3.4",
            "2",
            KIT,
            "no script can read the session cookie, and its value is in `Set-Cookie` alone",
            "`HttpOnly`. The key is in no page, no URL, no log, no error report and no table.",
        ),
        Requirement(
            "ASVS-3.3.5",
            "3",
            KIT,
            "a cookie takes no more than 4096 bytes",
            "The value has 32.",
        ),
        Requirement(
            "ASVS-3.4.3",
            "2",
            SITE,
            "a Content-Security-Policy",
            "Our pages need no script and no inline style, so that a strict one does them no harm.",
        ),
        Requirement(
            "ASVS-3.4.6",
            "2",
            SITE,
            "`frame-ancestors` in that policy",
            "Our pages say `X-Frame-Options: DENY`, which browsers obey and ASVS calls obsolete.",
        ),
        Requirement(
            "ASVS-3.5.1",
            "1",
            BOTH,
            "requests that other sites have forged are refused",
            "By our pages, also where a site has no `CsrfViewMiddleware`. Your views are yours.",
        ),
        Requirement(
            "ASVS-3.5.3",
            "1",
            BOTH,
            "what is sensitive takes a POST, not a GET",
            "On our pages, a GET changes nothing. Your views are yours.",
        ),
        Requirement(
            "ASVS-3.7.2",
            "2",
            KIT,
            "no redirect to a host that is not on a list",
            "`next` is followed to the host of the request alone.",
        ),
        Requirement(
            "ASVS-4.1.3",
            "2",
            BOTH,
            "users cannot forge what proxies say",
            "`X-Forwarded-For` is believed from as many proxies as `SESSIONKIT_TRUSTED_PROXIES` "
            "says, and from none by default. To count them is yours.",
        ),
        Requirement(
            "ASVS-6.3.5",
            "3",
            BOTH,
            "users are notified of suspicious sign-ins",
            "The list shows them every device, and what is new. A mail tells them of a sign-in on "
            "a new device, once `SESSIONKIT_NOTICES` asks for it. Sign-ins that fail are yours.",
        ),
        Requirement(
            "ASVS-6.3.7",
            "3",
            SITE,
            "users are notified of changes of their credentials",
            "The signal `sessions_ended` says when a change has ended sessions.",
        ),
        Requirement(
            "ASVS-8.2.2",
            "1",
            KIT,
            "nobody reaches what is somebody else's by its id",
            "Handles are names, not secrets: another user's is a 404, like one that is nobody's.",
        ),
        Requirement(
            "ASVS-8.2.4",
            "3",
            BOTH,
            "controls that look at address and device, on signing in and later",
            "`bind` of the policy, off by default: a session whose browser, system or network "
            "changes is reported, asked for the password, or ended. Sign-ins are yours to judge.",
        ),
        Requirement(
            "ASVS-8.3.2",
            "3",
            KIT,
            "a change of what somebody may do counts at once",
            "Django asks the database for permissions with every request. Sessions get a new key, "
            "or end, by `on_privilege_change` of the policy.",
        ),
        Requirement(
            "ASVS-11.5.1",
            "2",
            KIT,
            "what is not to be guessed is random, of 128 bits; UUIDs do not count",
            "The session key is. Handles are UUIDs, and open nothing.",
        ),
        Requirement(
            "ASVS-14.2.1",
            "1",
            KIT,
            "no session token in a URL",
            "The handle is there in its place.",
        ),
        Requirement(
            "ASVS-14.3.1",
            "1",
            SITE,
            "what a browser keeps of a session goes with it",
            "The cookie goes. `Clear-Site-Data`, for what your scripts keep, is yours to send.",
        ),
        Requirement(
            "ASVS-14.3.2",
            "2",
            BOTH,
            "`Cache-Control: no-store` on what is sensitive",
            "On every answer with a session cookie, and on our pages. Your pages are yours.",
        ),
        Requirement(
            "ASVS-15.4.2",
            "3",
            KIT,
            "a check and what depends on it are one atomic step",
            "Writes say in the same statement, or script, what has to be so for them to count. "
            "Sign-ins that a limit is for wait for each other.",
        ),
        Requirement(
            "ASVS-16.2.5",
            "2",
            KIT,
            "session tokens are logged hashed, or not at all",
            "Not at all; the SQL log, if it is on, has hashes.",
        ),
        Requirement(
            "ASVS-16.3.1",
            "2",
            BOTH,
            "sign-ins are logged, those that failed as well",
            "The rows are the log of those that did not. For the others, Django has a signal.",
        ),
        Requirement(
            "ASVS-16.3.3",
            "2",
            KIT,
            "attempts to get round the controls are logged",
            "Two session cookies, contents that do not open, a key that was used after it was "
            "changed, one sign-in too many: `django.security.SuspiciousSession`.",
        ),
        Requirement(
            "ASVS-16.4.1",
            "2",
            KIT,
            "nothing that is logged can forge a line of a log",
            "No value of a cookie is logged, and user agents are rid of control characters.",
        ),
        Requirement(
            "ASVS-16.5.2",
            "2",
            KIT,
            "secure also when something else is down",
            "Without its store a session is a 503: nobody gets in, and nobody is signed out. What "
            "is ended meanwhile stays ended.",
        ),
        Requirement(
            "ASVS-16.5.3",
            "2",
            KIT,
            "errors do not open anything",
            "What cannot be read is a 503 or a stranger, and what cannot be written is not half "
            "written.",
        ),
    ],
    "OWASP ASVS 5.0, chapter 9: self-contained tokens": [
        Requirement(
            "ASVS-9.1.1",
            "1",
            KIT,
            "tokens whose signature is verified before anything in them is believed",
            "`tokens.verify()` does, and so do the classes for REST framework and django-ninja.",
        ),
        Requirement(
            "ASVS-9.1.2",
            "1",
            KIT,
            "a list of algorithms that are allowed, without `none`",
            "Each key has one algorithm, ES256 by default. A token that names another is refused.",
        ),
        Requirement(
            "ASVS-9.1.3",
            "1",
            KIT,
            "keys from trusted places alone, whatever the header of the token says",
            "A header names one of our keys, by its id. One that says more is refused.",
        ),
        Requirement(
            "ASVS-9.2.1",
            "1",
            KIT,
            "tokens that are accepted only while they are valid",
            "Five minutes, by `SESSIONKIT_TOKEN_AGE`, and never longer than an hour.",
        ),
        Requirement(
            "ASVS-9.2.2",
            "2",
            KIT,
            "tokens that are accepted only for what their type is meant for",
            "The type is `at+jwt`. No other is accepted.",
        ),
        Requirement(
            "ASVS-9.2.3",
            "2",
            KIT,
            "tokens that are accepted only by those for whom they are",
            "By `SESSIONKIT_TOKEN_AUDIENCE`, or the audience that a view names.",
        ),
        Requirement(
            "ASVS-9.2.4",
            "2",
            KIT,
            "an audience in every token, if one key signs for several",
            "Every token has one.",
        ),
    ],
    "NIST SP 800-63B-4": [
        Requirement(
            "NIST-2.1.3",
            "AAL1",
            KIT,
            "a limit of the whole time shall be; 30 days at most are advised",
            "`policy.AAL1`, and what holds for everybody unless you say otherwise, or ask for a "
            "longer age by `SESSION_COOKIE_AGE` or `set_expiry()`.",
        ),
        Requirement(
            "NIST-2.2.3",
            "AAL2",
            KIT,
            "a limit of the whole time shall be; 24 hours, and 1 hour of inactivity, are advised; "
            "after that a password may resume the session on the same device",
            "`policy.AAL2`. To ask for two factors on signing in is yours.",
        ),
        Requirement(
            "NIST-2.3.3",
            "AAL3",
            KIT,
            "the whole time shall be 12 hours at most; 15 minutes of inactivity are advised",
            "`policy.AAL3`. To ask for the factors of AAL3, then as well, is yours.",
        ),
        Requirement(
            "NIST-SB-1",
            "all",
            KIT,
            "a secret is shared between browser and service",
            "The session key, in the cookie.",
        ),
        Requirement(
            "NIST-SB-2",
            "all",
            KIT,
            "the secret is presented, or proved",
            "Presented, with every request. Without it, or with another one, one is a stranger.",
        ),
        Requirement(
            "NIST-SB-3",
            "all",
            KIT,
            "a session goes on because of a secret that was issued on authentication",
            "By the key alone. It may change meanwhile, and the old one leads nowhere then: at "
            "once, or after `renew_grace` of the policy.",
        ),
        Requirement(
            "NIST-SB-4",
            "all",
            KIT,
            "no cookie in place of authentication, but to resume a session at AAL2",
            "There is no other cookie. A session that has ended is signed in to anew.",
        ),
        Requirement(
            "NIST-SB-5",
            "all",
            KIT,
            "limits hold for whoever has the secret, too",
            "They are in the store and on the row, and nothing that a browser sends moves them.",
        ),
        Requirement(
            "NIST-SB-6",
            "all",
            KIT,
            "the secret is made by the host, in response to an authentication",
            "`login()` gives a new key, to visitors and to those who are signed in.",
        ),
        Requirement(
            "NIST-SB-7",
            "all",
            SITE,
            "a session never counts as more than its authentication was",
            "The package does not know how somebody has proved who they are.",
        ),
        Requirement(
            "NIST-SB-8",
            "all",
            KIT,
            "the secret is made during authentication, or right after it",
            "As SB-6.",
        ),
        Requirement(
            "NIST-SB-8.1",
            "all",
            KIT,
            "the secret is random, of at least 64 bits",
            "160.",
        ),
        Requirement(
            "NIST-SB-8.2",
            "all",
            KIT,
            "the secret is erased or invalid after signing out",
            "The cookie is deleted, and what it opened is gone.",
        ),
        Requirement(
            "NIST-SB-8.3",
            "all",
            BOTH,
            "the secret travels over an authenticated, protected channel",
            "HTTPS is yours; `manage.py check --deploy` asks for a cookie that takes no other way.",
        ),
        Requirement(
            "NIST-SB-8.4",
            "all",
            KIT,
            "the secret is not accepted after the times of its level",
            "By `idle` and `absolute` of the policy.",
        ),
        Requirement(
            "NIST-SB-8.5",
            "all",
            BOTH,
            "nobody between browser and host can have the secret",
            "As SB-8.3. No cache keeps it: `no-store`.",
        ),
        Requirement(
            "NIST-SB-9",
            "all",
            SITE,
            "no way back from https to http",
            "`SESSION_COOKIE_SECURE`, `SECURE_SSL_REDIRECT`, HSTS.",
        ),
        Requirement(
            "NIST-SB-10",
            "all",
            BOTH,
            "what is posted contains an identifier of the session, which is verified",
            "Our pages verify Django's CSRF token. `CSRF_USE_SESSIONS = True`, which ties it to "
            "the session, is yours to set, and your views are yours.",
        ),
        Requirement(
            "NIST-5.1-persistence",
            "all",
            SITE,
            "advised: the secret does not outlive the browser's restart",
            "`SESSION_EXPIRE_AT_BROWSER_CLOSE = True`. The store forgets in time in any case.",
        ),
        Requirement(
            "NIST-5.1-logout",
            "all",
            SITE,
            "advised: signing out is easy to find",
            "As ASVS 7.4.4.",
        ),
        Requirement(
            "NIST-5.1.1",
            "all",
            BOTH,
            "cookies: `Secure`, for as few hosts and paths as can be, no personal data; advised: "
            "`HttpOnly`, `SameSite`, `__Host-`, expiring with the session",
            "As ASVS 3.3. The cookie expires with its session, which relies on nothing of that.",
        ),
        Requirement(
            "NIST-AT-1",
            "all",
            SITE,
            "an access token says nothing of somebody's presence",
            "A token speaks for a session, and its claim `auth_time` says when somebody was there. "
            "Do not take the token for more.",
        ),
        Requirement(
            "NIST-REAUTH-1",
            "all",
            KIT,
            "users prove from time to time who they are",
            "By `idle` and `absolute` of the policy.",
        ),
        Requirement(
            "NIST-REAUTH-2",
            "all",
            KIT,
            "the session ends when either time is over",
            "Whichever is first. With `lock`, as AAL2 allows, it waits for the password until "
            "the whole time is over.",
        ),
        Requirement(
            "NIST-REAUTH-3",
            "all",
            KIT,
            "activity resets the time of inactivity, and proving again who one is resets both",
            "Background requests (`@background_request`, prefetching) are no activity.",
        ),
        Requirement(
            "NIST-REAUTH-4",
            "all",
            BOTH,
            "the limits are written down",
            "As ASVS 7.1.1.",
        ),
        Requirement(
            "NIST-REAUTH-5",
            "all",
            SITE,
            "it is the site that decides whether to ask again, not the identity provider",
            "As ASVS 7.6.1.",
        ),
        Requirement(
            "NIST-5.3-monitoring",
            "all",
            BOTH,
            "allowed: to watch sessions for signs of fraud, and then to ask, to end or to tell",
            "`bind` of the policy watches browser, system and network. What else is a sign, where "
            "somebody goes or what they do, is yours.",
        ),
        Requirement(
            "NIST-SESSM-1",
            "all",
            SITE,
            "what is collected of sessions is in the assessment of privacy",
            "It is users, times, addresses and user agents, for `SESSIONKIT_RETENTION` after the "
            "end, and no longer than there is the user.",
        ),
    ],
    "OWASP Web Security Testing Guide, 4.6": [
        Requirement(
            "WSTG-SESS-01",
            "",
            KIT,
            "the session token cannot be guessed, counted, taken apart or made up",
            "It is random and means nothing. What does not look like one never reaches a store.",
        ),
        Requirement(
            "WSTG-SESS-02",
            "",
            BOTH,
            "attributes of the cookie",
            "As ASVS 3.3.",
        ),
        Requirement(
            "WSTG-SESS-03",
            "",
            KIT,
            "nobody can be given a session that somebody else knows",
            "Keys that were never issued are not taken over, and signing in changes the key.",
        ),
        Requirement(
            "WSTG-SESS-04",
            "",
            KIT,
            "the token is neither cached, nor in URLs, nor taken from them",
            "As ASVS 3.3.4, 14.2.1 and 14.3.2.",
        ),
        Requirement(
            "WSTG-SESS-05",
            "",
            BOTH,
            "requests that other sites have forged",
            "As ASVS 3.5.1.",
        ),
        Requirement(
            "WSTG-SESS-06",
            "",
            KIT,
            "after signing out, nothing works with the old cookie",
            "As ASVS 7.4.1.",
        ),
        Requirement(
            "WSTG-SESS-07",
            "",
            KIT,
            "the server ends sessions that were not used",
            "As ASVS 7.3.1.",
        ),
        Requirement(
            "WSTG-SESS-08",
            "",
            BOTH,
            "one thing in the session is not used for two purposes",
            "What the package knows is beside the dictionary, where no view can write. What your "
            "views keep there is yours.",
        ),
        Requirement(
            "WSTG-SESS-09",
            "",
            BOTH,
            "cookies cannot be read on the way",
            "As ASVS 3.3.1 and NIST SB-9.",
        ),
        Requirement(
            "WSTG-SESS-10",
            "",
            KIT,
            "JSON Web Tokens",
            "As ASVS, chapter 9.",
        ),
        Requirement(
            "WSTG-SESS-11",
            "",
            KIT,
            "concurrent sessions: how many, and what their user learns of them",
            "`limit` of the policy, and the list of devices.",
        ),
    ],
}

REQUIREMENTS = {
    requirement.id: requirement
    for requirements in CATALOGUE.values()
    for requirement in requirements
}


if __name__ == "__main__":
    sys.exit(main())

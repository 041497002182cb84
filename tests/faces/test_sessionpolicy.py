"""What ``manage.py sessionpolicy`` says to those who audit a site."""

import io
import re
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import models
from django.test import override_settings
from django.test.utils import isolate_apps

from django_sessionkit.management.commands import sessionpolicy
from django_sessionkit.policy import AAL1, AAL2, AAL3, ORDINARY, OnLimit, Policy
from tests.servers import PROJECT

pytestmark = pytest.mark.once


Follow = Callable[[Callable[[Any], Any]], list[Any]]


@pytest.fixture
def follow(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Follow:
    """Have the site follow a function of the user; return a list of whom it is asked about."""

    def follow(function: Callable[[Any], Any]) -> list[Any]:
        users: list[Any] = []

        def policy(user: Any, request: None) -> Any:
            users.append(user)
            return function(user)

        monkeypatch.setattr(sys.modules[__name__], "policy", policy, raising=False)
        settings.SESSIONKIT_POLICY = f"{__name__}.policy"
        return users

    return follow


@pytest.fixture
def say(follow: Follow) -> Callable[[Policy], str]:
    """Return what the command says of a policy, without its line breaks."""

    def say(policy: Policy) -> str:
        follow(lambda user: policy)
        return " ".join(run().split())

    return say


def run(*arguments: str) -> str:
    stdout = io.StringIO()
    call_command("sessionpolicy", *arguments, stdout=stdout)
    return stdout.getvalue()


def headings(text: str) -> list[str]:
    return re.findall(r"^(.+)\n-+$", text, re.MULTILINE)


def test_documents_show_what_it_says():
    (block,) = re.findall(
        r"^```text\n\$ python manage.py sessionpolicy\n(.*?)^```$",
        (PROJECT / "docs/policy.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert run() == block


def test_no_line_is_wider_than_a_terminal():
    for line in run().splitlines():
        assert len(line) <= 79
        assert line == line.rstrip()


# Whose policy it says.


def test_policies_of_everybody():
    assert headings(run()) == ["Ordinary users", "Staff and superusers"]


def test_policy_that_all_have_is_said_once(follow: Follow):
    asked = follow(lambda user: AAL2)
    assert headings(run()) == ["Ordinary users, staff and superusers"]
    assert [(user.is_staff, user.is_superuser) for user in asked] == [
        (False, False),
        (True, False),
        (True, True),
    ]
    assert all(user.pk is None for user in asked)


@isolate_apps("tests")
def test_users_who_can_not_be_staff(monkeypatch: pytest.MonkeyPatch):
    class Customer(AbstractBaseUser):
        number = models.IntegerField(unique=True)

        USERNAME_FIELD = "number"

        class Meta:
            app_label = "tests"

    monkeypatch.setattr(sessionpolicy, "get_user_model", lambda: Customer)
    assert headings(run()) == ["Ordinary users"]


@pytest.mark.django_db
def test_policy_of_one_user():
    User.objects.create_user("alice")
    User.objects.create_user("bob", is_staff=True)
    alice, bob = run("--user", "alice"), run("--user", "bob")
    assert headings(alice) == ["User alice"]
    assert "30 days after its user has proved" in " ".join(alice.split())
    assert headings(bob) == ["User bob"]
    assert "12 hours after its user has proved" in " ".join(bob.split())


@pytest.mark.django_db
def test_user_is_found_as_they_sign_in(monkeypatch: pytest.MonkeyPatch):
    User.objects.create_user("alice")
    with pytest.raises(CommandError, match="There is no user 'Alice'"):
        run("--user", "Alice")
    with mock.patch.object(
        type(User.objects), "get_by_natural_key", lambda self, name: self.get(username__iexact=name)
    ):
        assert headings(run("--user", "Alice")) == ["User alice"]


@pytest.mark.django_db
def test_user_who_does_not_exist():
    with pytest.raises(CommandError, match="There is no user 'nobody'"):
        run("--user", "nobody")
    with pytest.raises(CommandError, match="There is no user ''"):
        run("--user", "")


# When the policy can not be asked.


def test_policy_that_needs_a_stored_user(follow: Follow):
    follow(lambda user: AAL2 if user.groups.exists() else AAL1)
    with pytest.raises(CommandError) as raised:
        run()
    text = str(raised.value)
    assert "test_sessionpolicy.policy does not tell the policy of ordinary users: " in text
    assert text.endswith(" can be used. Add --user and the name of a stored user.")


@pytest.mark.django_db
def test_policy_that_fails_for_a_stored_user(follow: Follow):
    User.objects.create_user("alice")
    follow(lambda user: Policy(idle=-1))
    with pytest.raises(CommandError) as raised:
        run("--user", "alice")
    assert "the policy of user alice: A policy cannot have idle = -1" in str(raised.value)
    assert "--user" not in str(raised.value)


def test_policy_that_is_none(follow: Follow):
    follow(lambda user: None)
    with pytest.raises(CommandError, match="has to return a Policy, not None"):
        run()


def test_policy_that_can_not_be_imported():
    with (
        override_settings(SESSIONKIT_POLICY="nowhere.policy"),
        pytest.raises(CommandError, match="No module named 'nowhere'"),
    ):
        run()


@pytest.mark.django_db
def test_says_what_a_policy_of_the_sites_own_was_not_asked(follow: Follow):
    User.objects.create_user("alice")
    follow(lambda user: AAL2)
    text = " ".join(run().split())
    assert "asked without a request, about users who are not stored and are in no group." in text
    text = " ".join(run("--user", "alice").split())
    assert "asked without a request. " in text
    with override_settings(SESSIONKIT_POLICY="django_sessionkit.policy.aal2"):
        assert "without a request" not in run()


# What it says.


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (61, "1 minute and 1 second"),
        (5400, "1 hour and 30 minutes"),
        (24 * 3600, "24 hours"),
        (36 * 3600, "36 hours"),
        (48 * 3600, "2 days"),
        (30 * 24 * 3600, "30 days"),
        (2 * 24 * 3600 + 3600 + 60 + 1, "2 days, 1 hour, 1 minute and 1 second"),
    ],
)
def test_ages_in_words(seconds: int, words: str):
    assert sessionpolicy._age(seconds) == words


def timeouts(text: str) -> str:
    (found,) = re.findall(r"Timeouts \(ASVS [^)]*\)\. (.*?) Number of sessions", text)
    return str(found)


LOCKED = (
    "After 1 hour without activity a session is locked: nothing is lost, and the password opens it "
    "again, on the same device."
)
COOKIE_AGE = "A session ends after 14 days without activity (SESSION_COOKIE_AGE)"
PROVED = "after its user has proved who they are, however active it is."
ANEW = "Only another proof begins this time anew."
LONGER = "An age longer than that, for which a view asks by set_expiry(), is its longest time."
FOR_EVER = "There is no longest time: a session that is in use goes on for ever."
NEVER_LATE = (
    "Activity is written down at most once in 1 minute, so inactivity can be found up to 1 minute "
    "early, and never late."
)
HOUR, DAY = 3600, 24 * 3600


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(), [f"{COOKIE_AGE}.", FOR_EVER, NEVER_LATE]),
        (AAL1, [f"{COOKIE_AGE}, and 30 days {PROVED}", ANEW, NEVER_LATE]),
        (ORDINARY, [f"{COOKIE_AGE}, and 30 days {PROVED}", ANEW, LONGER, NEVER_LATE]),
        (AAL2, [LOCKED, f"A session ends 24 hours {PROVED}", ANEW, NEVER_LATE]),
        (
            AAL3,
            [
                f"A session ends after 15 minutes without activity, and 12 hours {PROVED}",
                ANEW,
                NEVER_LATE,
            ],
        ),
        (
            Policy(idle=HOUR),
            ["A session ends after 1 hour without activity.", FOR_EVER, NEVER_LATE],
        ),
        (
            Policy(absolute=7 * DAY),
            [f"A session ends 7 days {PROVED}", ANEW, "Inactivity does not end it earlier."],
        ),
        (
            Policy(idle=HOUR, absolute=HOUR),
            [f"A session ends 1 hour {PROVED}", ANEW, "Inactivity does not end it earlier."],
        ),
        (
            Policy(idle=30 * DAY),
            [
                f"{COOKIE_AGE}.",
                FOR_EVER,
                "The policy would allow 30 days without activity.",
                NEVER_LATE,
            ],
        ),
        (Policy(idle=HOUR, lock=True), [LOCKED, f"{COOKIE_AGE}.", FOR_EVER, NEVER_LATE]),
        # It ends before it could be locked.
        (
            Policy(idle=14 * DAY, lock=True),
            ["A session ends after 14 days without activity.", FOR_EVER, NEVER_LATE],
        ),
    ],
)
@pytest.mark.standard("ASVS-7.1.1", "NIST-REAUTH-4")
def test_timeouts(say: Callable[[Policy], str], policy: Policy, expected: list[str]):
    assert timeouts(say(policy)) == " ".join(expected)


def test_timeouts_are_as_exact_as_the_activity_is(say: Callable[[Policy], str]):
    assert "so inactivity can be found up to 6 seconds early" in say(Policy(idle=60))
    assert "by QuerySet.update() or SQL, a session in use ends within 6 seconds." in say(
        Policy(idle=60, lock=True)
    )
    with override_settings(SESSION_COOKIE_AGE=65):
        assert "so inactivity can be found up to 7 seconds early" in say(Policy())
    with override_settings(SESSIONKIT_TOUCH_INTERVAL=300):
        assert "at most once in 5 minutes, so inactivity can be found up to 5 minutes" in say(AAL1)


@pytest.mark.parametrize(
    ("on_limit", "expected"),
    [
        (
            "end_oldest",
            "When one more begins, the one that began first is ended, and its user told why.",
        ),
        (
            "end_idlest",
            (
                "When one more begins, the one that has been inactive for longest is ended, and "
                "its user told why."
            ),
        ),
        ("refuse", "One more is refused, and its user told why."),
        (
            "ask",
            "When one more begins, its user is asked which to end, and has to wait until then.",
        ),
    ],
)
@pytest.mark.standard("ASVS-7.1.2")
def test_number_of_sessions(say: Callable[[Policy], str], on_limit: OnLimit, expected: str):
    begin = "Number of sessions (ASVS 7.1.2). A user may have"
    text = say(Policy(on_limit=on_limit))
    assert f"{begin} any number of them at a time. Session keys" in text
    text = say(Policy(limit=1, on_limit=on_limit))
    assert f"{begin} 1 session at a time. {expected} Session keys" in text
    text = say(Policy(limit=20, on_limit=on_limit))
    assert f"{begin} 20 sessions at a time. {expected} Session keys" in text


RENEWED = "A key that was renewed without its user's doing"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (
            Policy(),
            [
                f"{RENEWED} works for 30 seconds beside the new one.",
                "To use it later ends the session, and is reported.",
            ],
        ),
        (
            Policy(renew_after=900, renew_grace=10, on_reuse="report", on_privilege_change="keep"),
            [
                "It gets one 15 minutes after the last, too.",
                f"{RENEWED} works for 10 seconds beside the new one.",
                "To use it later is reported.",
            ],
        ),
        (Policy(on_privilege_change="keep"), []),
        (Policy(on_privilege_change="end"), []),
    ],
)
def test_session_keys(say: Callable[[Policy], str], policy: Policy, expected: list[str]):
    begin = "Session keys (ASVS 7.2.4). A sign-in and a proof of identity give a session a new key."
    assert " ".join([begin, *expected, "Binding"]) in say(policy)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(), "A session is not tied to a browser, a system or a network."),
        (
            Policy(bind=("browser",)),
            "A session is to stay with its browser. If it does not, this is reported.",
        ),
        (
            Policy(bind=("browser", "system", "network"), on_change="ask"),
            (
                "A session is to stay with its browser, system and network. If it does not, its "
                "user has to prove again who they are."
            ),
        ),
        (
            Policy(bind=("browser", "system"), on_change="end"),
            "A session is to stay with its browser and system. If it does not, the session ends.",
        ),
    ],
)
def test_binding(say: Callable[[Policy], str], policy: Policy, expected: str):
    assert f"Binding. {expected} Accounts" in say(policy)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(), "sessions get new keys."),
        (Policy(on_privilege_change="end"), "sessions end."),
        (Policy(on_privilege_change="keep"), "sessions stay as they are."),
    ],
)
def test_accounts(say: Callable[[Policy], str], policy: Policy, expected: str):
    assert f"When groups, permissions or staff flags change, {expected} If a password" in say(
        policy
    )


def test_how_old_a_proof_may_be(say: Callable[[Policy], str]):
    assert "accepts one that is up to 15 minutes old." in say(Policy(recent=900))


# How that compares with NIST SP 800-63B-4.


def levels(text: str) -> list[str]:
    (found,) = re.findall(r"NIST SP 800-63B-4: AAL1 (.*?) For all sessions", text)
    return re.split(r" AAL[23] ", found)


@pytest.mark.parametrize("policy", [AAL3, Policy(absolute=900)])
def test_policy_that_meets_all_levels(say: Callable[[Policy], str], policy: Policy):
    assert levels(say(policy)) == ["(2.1.3): met.", "(2.2.3): met.", "(2.3.3): met."]


def test_a_cookie_for_a_year_is_the_longest_time_where_the_policy_can_be_extended(
    say: Callable[[Policy], str], settings: Any
):
    settings.SESSION_COOKIE_AGE = 365 * DAY
    text = say(ORDINARY)
    assert f"A session ends 365 days (SESSION_COOKIE_AGE) {PROVED} {ANEW} {LONGER}" in text
    assert levels(text)[0] == (
        "(2.1.3): what it demands is met, what it recommends is not: 365 days after a proof of "
        "identity is longer than the 30 days that it recommends."
    )
    assert f"A session ends 30 days {PROVED} {ANEW} Inactivity does" in say(AAL1)


def test_policy_that_a_view_can_extend_meets_what_it_says_until_then(say: Callable[[Policy], str]):
    assert levels(say(ORDINARY))[0] == "(2.1.3): met, unless a view asks for a longer age."
    assert levels(say(AAL1))[0] == "(2.1.3): met."


def test_policy_without_a_longest_time_meets_none(say: Callable[[Policy], str]):
    none = "there is no longest time after a proof of identity, and there has to be one"
    assert levels(say(Policy(idle=900))) == [
        f"(2.1.3): not met: {none}.",
        f"(2.2.3): not met: {none}.",
        f"(2.3.3): not met: {none}.",
    ]


@pytest.mark.standard("ASVS-7.1.1", "NIST-2.1.3", "NIST-2.2.3", "NIST-2.3.3")
def test_what_is_longer_than_a_level_recommends_is_no_failure(say: Callable[[Policy], str]):
    aal1, aal2, aal3 = levels(say(Policy(idle=7200, absolute=31 * 24 * 3600)))
    met = "what it demands is met, what it recommends is not"
    assert aal1 == (
        f"(2.1.3): {met}: 31 days after a proof of identity is longer than the 30 days that it "
        "recommends."
    )
    assert aal2 == (
        f"(2.2.3): {met}: 31 days after a proof of identity is longer than the 24 hours that it "
        "recommends; 2 hours without activity is longer than the 1 hour that it recommends."
    )
    assert aal3 == (
        "(2.3.3): not met: 31 days after a proof of identity is longer than the 12 hours that it "
        "allows; 2 hours without activity is longer than the 15 minutes that it recommends."
    )


def test_password_alone_is_too_little_for_the_highest_level(
    say: Callable[[Policy], str], settings: Any
):
    locking = Policy(idle=900, absolute=12 * 3600, lock=True)
    assert levels(say(locking)) == [
        "(2.1.3): met.",
        "(2.2.3): met.",
        "(2.3.3): not met: a password alone opens a locked session, and it demands every factor.",
    ]
    settings.SESSIONKIT_REAUTHENTICATION_URL = "two_factor"  # whatever that asks for
    text = say(locking)
    assert "a proof of identity opens it again" in text
    assert levels(text)[2] == "(2.3.3): met."


@pytest.mark.standard("ASVS-7.1.1")
def test_shorter_cookie_age_counts(say: Callable[[Policy], str]):
    with override_settings(SESSION_COOKIE_AGE=900):
        assert levels(say(Policy(absolute=12 * 3600)))[2] == "(2.3.3): met."


# What holds for all.


def test_what_django_is_told_about_cookies_is_said(say: Callable[[Policy], str]):
    assert "Browsers keep the session cookie when they are closed, and NIST" in say(AAL2)
    with override_settings(SESSION_EXPIRE_AT_BROWSER_CLOSE=True):
        text = say(AAL2)
    assert "Browsers are told to forget the session cookie when they are closed" in text
    assert "recommends that they do not" not in text


def test_age_of_visitors_is_said(say: Callable[[Policy], str]):
    assert "visitor" not in say(AAL2)
    with override_settings(SESSIONKIT_VISITOR_AGE=3 * DAY):
        assert "not signed in ends after 3 days without activity (SESSIONKIT_" in say(AAL2)
    with override_settings(SESSIONKIT_VISITOR_AGE=30 * DAY):  # see the check W024
        assert "not signed in ends after 14 days without activity" in say(AAL2)


def test_what_is_no_activity_is_said(say: Callable[[Policy], str]):
    assert "requests in the background are no activity." in say(AAL2)
    with override_settings(SESSIONKIT_BACKGROUND=["/poll/", "/chat/"]):
        assert "no activity, such as those whose path begins with /poll/ and /chat/." in say(AAL2)

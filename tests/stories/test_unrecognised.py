"""A user sees a device that is not theirs: it goes at once, and then comes the password."""

from datetime import timedelta
from html import unescape
from uuid import uuid4

import pytest
from django.contrib.auth.views import PasswordChangeView
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_sessionkit.models import EndReason, UserSession, uuid7
from tests import store
from tests.pages import LIST, OTHERS, PROVE, fields_of, press, said, words
from tests.people import CHROME, FIREFOX, IPHONE, end_url, handle, is_in, row_of, sign_in
from tests.store import travel
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

# A site that has a page to change the password, by the name that Django gives it.
urlpatterns = [
    *site,
    path(
        "password/",
        PasswordChangeView.as_view(template_name="admin/login.html"),
        name="password_change",
    ),
]
BUTTON = 'name="unrecognised" value="1">I do not recognise this</button>'
NEXT = "Chrome on Windows was signed out. Now change your password: somebody else may know it."


@pytest.fixture
def thief(alice):
    """A browser that Alice does not know."""
    return sign_in(alice, CHROME, "203.0.113.9")


@pytest.fixture
def site_without_passwords(settings):
    """A site that has no page to change the password."""
    settings.ROOT_URLCONF = "tests.urls"


def are_of(browser, *devices):
    """Have these devices be one browser, as the cookie tells which."""
    rows = UserSession.objects.filter(pk__in=[handle(device) for device in devices])
    rows.update(browser=browser)
    return list(rows)


def disown(device, url):
    """Press "I do not recognise this" on a page."""
    assert BUTTON in device.get(url).text
    return press(device, url, unrecognised="1")


def reported():
    rows = UserSession.objects.exclude(reported_at=None)
    return {row.pk for row in rows}


@pytest.mark.standard("ASVS-7.5.2")
def test_a_device_that_nobody_recognises_goes_and_then_comes_the_password(laptop, thief):
    url, row = end_url(thief), row_of(thief)
    asked = words(laptop.get(url))
    assert "Not your device?" in asked
    assert "Then change your password: somebody else may know it." in asked
    answer = disown(laptop, url)
    # In that order: it is out before the user has begun to change anything.
    assert not is_in(thief)
    assert (answer.status_code, answer["Location"]) == (302, "/password/")
    page = laptop.get(answer["Location"])
    assert NEXT in words(page)
    (message,) = page.context["messages"]
    assert message.level_tag == "warning"
    assert is_in(laptop)
    row.refresh_from_db()
    assert (row.end_reason, row.ended_by, row.ended_from) == (
        EndReason.REVOKED,
        row.user,
        handle(laptop),
    )
    assert row.reported_at
    assert row.reported_at <= row.ended_at


def test_whatever_else_the_same_browser_has_goes_too(alice, bob, laptop, thief):
    before, again, elsewhere = (sign_in(alice, CHROME) for _ in range(3))
    of_bob = sign_in(bob, CHROME)
    there = uuid4()
    rows = are_of(there, thief, again, before, of_bob)
    are_of(uuid4(), elsewhere)
    are_of(uuid4(), laptop)
    UserSession.objects.filter(pk=handle(before)).revoke()
    disown(laptop, end_url(again))
    assert [is_in(each) for each in (thief, again, elsewhere, laptop)] == [False, False, True, True]
    assert is_in(of_bob, bob)
    # What had ended before may have been another matter.
    gone = {row.pk for row in rows if row.user_agent == CHROME and row.user_id == alice.pk}
    assert reported() < gone
    assert len(reported()) == 2


def test_what_the_browser_did_later_is_reported_too(alice, laptop, thief):
    """Or it would be taken for one that the user knows, at the next sign-in."""
    later = sign_in(alice, CHROME)
    rows = are_of(uuid4(), thief, later)
    later.post("/logout/", {"csrfmiddlewaretoken": later.cookies["csrftoken"].value})
    disown(laptop, end_url(thief))
    assert reported() == {row.pk for row in rows}
    assert UserSession.objects.get(end_reason=EndReason.LOGOUT).reported_at


def test_browsers_of_which_nothing_is_known_are_not_taken_for_one(alice, laptop, thief):
    others = [sign_in(alice, user_agent) for user_agent in (CHROME, FIREFOX, IPHONE)]
    UserSession.objects.update(browser=None)
    are_of(uuid4(), laptop)
    the_one = handle(thief)
    disown(laptop, end_url(thief))
    assert all(is_in(other) for other in others)
    assert reported() == {the_one}


def test_the_browser_that_the_user_has_in_hand_stays(alice, laptop):
    """It has an earlier sign-in of its user, whose cookie it has lost."""
    earlier, third = sign_in(alice), sign_in(alice)
    are_of(uuid4(), laptop, earlier, third)
    the_one = handle(earlier)
    disown(laptop, end_url(earlier))
    assert is_in(laptop)
    assert is_in(third)
    assert reported() == {the_one}


def test_what_has_ended_meanwhile_is_reported_all_the_same(laptop, thief):
    url, row = end_url(thief), row_of(thief)
    form = fields_of(laptop.get(url))
    UserSession.objects.filter(pk=row.pk).revoke(EndReason.EXPIRED)
    answer = laptop.post(url, {**form, "unrecognised": "1"})
    assert answer["Location"] == "/password/"
    assert reported() == {row.pk}
    at = UserSession.objects.get(pk=row.pk).reported_at
    laptop.post(url, {**form, "unrecognised": "1"})
    assert UserSession.objects.get(pk=row.pk).reported_at == at
    page = laptop.get(url)
    assert "Chrome on Windows was signed out already" in words(page)
    assert '<a href="/password/">Change your password.</a>' in page.text
    assert BUTTON not in page.text


def test_nobody_is_led_where_the_site_has_no_page(laptop, thief, site_without_passwords):
    answer = disown(laptop, end_url(thief))
    assert answer["Location"] == LIST
    assert said(answer) == [NEXT]
    assert not is_in(thief)
    page = laptop.get(end_url_of(reported()))
    assert "Did you not recognise it? Change your password." in words(page)


def end_url_of(handles):
    (pk,) = handles
    return f"/account/sessions/{pk}/end/"


@pytest.fixture
def without_password(alice, laptop, thief):
    """Alice signs in at another site, and has no password here."""
    devices = laptop, thief
    alice.set_unusable_password()
    type(alice).objects.bulk_update([alice], ["password"])
    for device in devices:
        device.force_login(alice)
    UserSession.objects.update(backend="")
    UserSession.objects.filter(pk=handle(thief)).update(user_agent=CHROME)
    return alice


def test_whoever_has_no_password_is_led_to_none(without_password, laptop, thief):
    url = end_url(thief)
    for page in (laptop.get(url), laptop.get(OTHERS), laptop.get(LIST)):
        assert "password" not in words(page)
    assert "Then secure the account that you sign in with" in words(laptop.get(url))
    answer = disown(laptop, url)
    assert answer["Location"] == LIST
    (message,) = said(answer)
    assert message == (
        "Chrome on Windows was signed out. Now secure the account that you sign in with: somebody"
        " else may have access to it."
    )
    assert "assword" not in words(laptop.get(url))


def test_whoever_has_no_password_is_told_of_none(without_password, laptop, thief):
    assert said(press(laptop, end_url(thief))) == ["Chrome on Windows was signed out."]


def test_who_has_just_signed_something_out_is_asked_whether_they_knew_it(alice, laptop, thief):
    UserSession.objects.filter(pk=handle(thief)).update(label="<i>")
    answer = press(laptop, end_url(thief))
    advice = '<a href="/password/">Change your password.</a>'
    (message,) = said(answer)
    assert message == f"&lt;i&gt; was signed out. Did you not recognise it? {advice}"
    page = laptop.get(answer["Location"])
    assert message in page.text
    for count, question in (
        (1, "1 other device was signed out. Did you not recognise it?"),
        (2, "2 other devices were signed out. Did you not recognise one of them?"),
    ):
        for _ in range(count):
            sign_in(alice, IPHONE)
        assert said(press(laptop, OTHERS))[-1] == f"{question} {advice}"


@pytest.mark.standard("ASVS-7.5.2")
def test_a_thief_with_an_old_cookie_reports_nobody(laptop, thief):
    url = end_url(laptop)
    with travel(timedelta(hours=2)):
        csrf = {"csrfmiddlewaretoken": thief.cookies["csrftoken"].value}
        answer = thief.post(url, {**csrf, "unrecognised": "1"})
        assert answer["Location"] == f"{PROVE}?next={url}"
        assert is_in(laptop)
    assert not reported()


def test_nobody_reports_the_session_that_they_use(laptop):
    url = end_url(laptop)
    assert BUTTON not in laptop.get(url).text
    press(laptop, url, unrecognised="1")
    assert not is_in(laptop)
    assert not reported()


def test_support_is_nothing_that_a_new_password_helps_against(laptop, thief):
    UserSession.objects.filter(pk=handle(thief)).update(support=True)
    page = laptop.get(end_url(thief))
    assert "The staff of this site act as you there." in words(page)
    assert BUTTON not in page.text
    assert "password" not in words(page)
    url = end_url(thief)
    assert said(press(laptop, url)) == ["Support access was signed out."]
    assert "password" not in words(laptop.get(url))


def test_the_user_is_led_on_also_when_the_store_does_not_answer(laptop, thief, store_down):
    answer = disown(laptop, end_url(thief))
    assert answer["Location"] == "/password/"
    assert said(answer) == [
        "Signed out, but it may take up to 60 seconds to take effect.",
        NEXT,
    ]
    assert len(reported()) == 1


def test_the_titles_say_what_is_asked(alice, laptop, thief):
    url, own, others = end_url(thief), end_url(laptop), "Sign out the other device?"

    def title(url):
        page = laptop.get(url)
        (text,) = page.text.partition("<title>")[2].partition("</title>")[:1]
        heading = page.text.partition("<h1>")[2].partition("</h1>")[0]
        assert text.endswith(heading.strip())  # after the first message
        return unescape(heading.strip())

    assert title(url) == "Sign out Chrome on Windows?"
    assert title(own) == "Sign out of this device?"
    assert title(OTHERS) == others
    assert "The other device is signed out at once and has to sign in again" in words(
        laptop.get(OTHERS)
    )
    assert ">Sign out the other device</button>" in laptop.get(OTHERS).text
    sign_in(alice, IPHONE)
    assert title(OTHERS) == "Sign out all 2 other devices?"
    asked = laptop.get(OTHERS)
    assert ">Sign out all other devices (2)</button>" in asked.text
    assert "Not all your devices? Then change your password afterwards" in words(asked)
    assert '<a href="/password/">Change your password</a>' in asked.text
    assert "And " not in words(asked)
    press(laptop, OTHERS)
    assert title(url) == "Chrome on Windows was signed out already"
    assert title(OTHERS) == "No other device is signed in"


# What it costs.


def statements(device, url, **fields):
    form = {**fields_of(device.get(url)), **fields}
    with CaptureQueriesContext(connection) as captured:
        assert device.post(url, form).status_code == 302
    of_rows = [each["sql"] for each in captured if "django_sessionkit_usersession" in each["sql"]]
    return [sql.split()[0] for sql in of_rows]


def test_it_takes_as_many_statements_however_many_sessions_there_are(alice, laptop):
    costs = []
    for count in (1, 4):
        there = uuid4()
        devices = [sign_in(alice, CHROME) for _ in range(count)]
        are_of(there, *devices)
        costs.append(statements(laptop, end_url(devices[0]), unrecognised="1"))
    assert costs[0] == costs[1]
    plain = statements(laptop, end_url(sign_in(alice, CHROME)))
    # One asks for the sessions of that browser, one notes what is not recognised.
    assert sorted(costs[0]) == sorted([*plain, "SELECT", "UPDATE"])


@pytest.mark.parametrize("count", [0, 30])
def test_the_pages_that_ask_take_two_queries(alice, laptop, thief, count):
    def queries(url):
        with CaptureQueriesContext(connection) as captured:
            assert laptop.get(url).status_code == 200
        return len(captured)

    row = row_of(thief)
    for _ in range(count):
        row.pk, row.digest, row.browser = uuid7(), uuid4().hex, uuid4()
        row.save(force_insert=True)
    request = queries("/whoami/")
    assert queries(end_url(thief)) - request == 1
    # One asks the store which are alive.
    peek = 0 if store.APART else 1
    assert queries(OTHERS) - request == 1 + peek


def test_it_is_a_verb_for_projects_too(laptop, thief, drive):
    rows = UserSession.objects.filter(pk=handle(thief))
    assert drive(rows, "report") == 1
    assert drive(rows, "report") == 0
    assert reported() == {handle(thief)}
    assert is_in(thief)

"""What a site's own pages say of the reader's sessions, by the template tags."""

import json
import re
import uuid
from html import unescape
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.template import Context, RequestContext, Template
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from django_sessionkit.models import Novelty, UserSession
from tests.pages import LIST
from tests.people import CHROME, IPHONE, row_of, sign_in
from tests.policies import LOCK
from tests.urls import urlpatterns as site

pytestmark = [pytest.mark.django_db, pytest.mark.site(__name__)]

# What the page of the site says.
PAGE = ["{% load sessionkit %}"]


def page(request: HttpRequest) -> HttpResponse:
    context = RequestContext(request, request.GET.dict())
    return HttpResponse(Template("{% load sessionkit %}" + PAGE[0]).render(context))


urlpatterns = [*site, path("page/", page)]


@pytest.fixture
def says():
    """A function that has a page say something, and returns what its reader sees."""

    def says(browser: Any, template: str, **context: str) -> str:
        PAGE[:] = [template]
        response = browser.get("/page/", context)
        assert response.status_code == 200
        text: str = response.text.strip()
        return text

    return says


DEVICE = "{% current_session as own %}{{ own.name }}, since {{ own.started_at|date:'Y' }}"
COUNT = "{% device_count %}"
NEW = "{% new_sign_in as new %}{% if new %}{{ new.name }}: {{ new.get_novelty_display }}{% endif %}"
SCRIPT = "{% session_script %}"
ALL = [DEVICE, COUNT, NEW]


# Devices.


def test_page_says_on_which_device_its_reader_is_and_since_when(laptop, says):
    assert says(laptop, DEVICE) == f"{row_of(laptop).name}, since {timezone.now().year}"


def test_page_says_how_many_devices_are_signed_in(alice, bob, laptop, says):
    assert says(laptop, COUNT) == "1"
    for user_agent in (CHROME, IPHONE):
        sign_in(alice, user_agent)
    sign_in(bob)
    assert says(laptop, COUNT) == "3"
    UserSession.objects.exclude(pk=row_of(laptop).pk).filter(user=alice).first().delete()
    assert says(laptop, COUNT) == "2"
    UserSession.objects.exclude(pk=row_of(laptop).pk).revoke()
    assert says(laptop, COUNT) == "1"


def test_sessions_in_one_browser_are_one_device(alice, laptop, says):
    twice = uuid.uuid4()
    for browser in (twice, twice, uuid.uuid4()):
        device = sign_in(alice)
        UserSession.objects.filter(pk=row_of(device).pk).update(browser=browser)
    assert says(laptop, COUNT) == "3"


def test_without_a_device_cookie_as_many_are_counted_as_the_list_shows(alice, laptop, says):
    for _ in range(3):
        sign_in(alice, CHROME)
    UserSession.objects.update(browser=None)
    assert len(laptop.get(LIST).context["devices"]) == 2
    assert says(laptop, COUNT) == "2"


# Sign-ins that are new.


@pytest.fixture
def away(clock, laptop):
    """Alice has been away from her laptop for an hour."""
    clock.move(hours=1)
    return laptop


def new(device: Any, novelty: Novelty) -> None:
    UserSession.objects.filter(pk=row_of(device).pk).update(novelty=novelty)


@pytest.mark.parametrize("has_ended", [False, True])
def test_who_comes_back_reads_of_a_new_sign_in_once(alice, away, clock, says, has_ended):
    phone = sign_in(alice, IPHONE)
    new(phone, Novelty.DEVICE)
    row = row_of(phone)
    if has_ended:
        UserSession.objects.filter(pk=row.pk).revoke()
    clock.move(minutes=10)
    assert says(away, NEW) == f"{row.name}: New device"
    assert says(away, NEW) == ""


def test_the_newest_is_the_one_that_is_named(alice, away, clock, says):
    for user_agent, novelty in ((IPHONE, Novelty.DEVICE), (CHROME, Novelty.PLACE)):
        device = sign_in(alice, user_agent)
        new(device, novelty)
        clock.move(minutes=1)
    assert says(away, NEW) == f"{row_of(device).name}: Unusual place"


def test_nobody_reads_of_what_is_not_new_or_not_theirs(clock, alice, bob, laptop, says):
    new(sign_in(alice, IPHONE), Novelty.DEVICE)  # Alice saw her laptop afterwards
    clock.move(hours=1)
    says(laptop, "")
    laptop.get("/private/")
    clock.move(hours=1)
    UserSession.objects.filter(pk=row_of(sign_in(alice, CHROME)).pk).update(novelty="")
    new(sign_in(bob, IPHONE), Novelty.DEVICE)
    support = sign_in(alice, IPHONE)
    new(support, Novelty.DEVICE)
    UserSession.objects.filter(pk=row_of(support).pk).update(support=True)
    assert says(laptop, NEW) == ""


# What they cost.


@pytest.mark.parametrize("tag", ALL)
def test_each_asks_once_for_a_page(laptop, says, tag):
    with CaptureQueriesContext(connection) as without:
        says(laptop, "{{ request.session.handle }}")
    with CaptureQueriesContext(connection) as captured:
        says(laptop, 3 * tag)
    assert len(captured) == len(without) + 1


def test_visitors_cost_nothing(client, says):
    with CaptureQueriesContext(connection) as captured:
        assert says(client, "".join(ALL) + SCRIPT) == ", since 0"
    assert not captured


@pytest.mark.once
def test_reader_whose_session_is_locked_is_a_visitor(laptop, signed_in, policy, clock, says):
    policy(**LOCK)
    browser = signed_in()
    clock.move(seconds=600)
    PAGE[:] = [COUNT + SCRIPT]
    assert browser.get("/page/").text.strip() == "0"


@pytest.mark.once
@pytest.mark.parametrize("tag", [*ALL, SCRIPT])
def test_template_without_the_request_says_what_to_do(tag):
    with pytest.raises(ImproperlyConfigured, match="context_processors"):
        Template("{% load sessionkit %}" + tag).render(Context())


@pytest.mark.once
@pytest.mark.parametrize("tag", [COUNT, NEW, SCRIPT])
def test_request_without_a_session_is_a_visitors(tag):
    text = Template("{% load sessionkit %}" + tag).render(Context({"request": HttpRequest()}))
    assert text.strip() in ("0", "")


# The script.


def status(html: str) -> dict[str, Any]:
    found = re.search(r'data-status="([^"]*)"', html)
    assert found
    told: dict[str, Any] = json.loads(unescape(found[1]))
    return told


@pytest.mark.parametrize("escape", ["on", "off"])
def test_script_knows_how_the_session_is_without_asking(signed_in, policy, clock, says, escape):
    policy(idle=600, absolute=3600)
    browser = signed_in()
    with CaptureQueriesContext(connection) as without:
        says(browser, "{{ request.session.handle }}")
    with CaptureQueriesContext(connection) as captured:
        html = says(browser, f"{{% autoescape {escape} %}}{SCRIPT}{{% endautoescape %}}")
    assert len(captured) == len(without)
    told = status(html)
    assert (told["state"], told["idle_in"], told["expires_in"]) == ("active", 600, 3600)
    assert "csrf" not in told
    assert 'data-url="/account/sessions/status/?language=en-us"' in html
    assert 'data-warn="120"' in html
    assert "data-quiet" not in html
    assert "nonce" not in html


@pytest.mark.once
def test_page_says_when_to_warn_and_whether_to_be_quiet(laptop, says):
    html = says(laptop, "{% session_script warn=300 heartbeat=False %}")
    assert 'data-warn="300"' in html
    assert "data-quiet" in html


@pytest.mark.once
def test_nothing_in_it_is_inline(laptop, says):
    html = says(laptop, SCRIPT)
    assert re.findall(r"<script[^>]*>([^<]*)</script>", html) == [""]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)


@pytest.mark.once
def test_nonce_of_the_policy_is_on_what_it_loads(laptop, says):
    html = says(laptop, SCRIPT, csp_nonce="n0nce")
    assert len(re.findall(r'<(?:script|link)[^>]* nonce="n0nce"', html)) == 2


@pytest.mark.once
def test_key_of_the_session_is_not_in_it(laptop, says):
    assert laptop.cookies["sessionid"].value not in says(laptop, SCRIPT)


@pytest.mark.once
def test_page_in_no_language_has_a_script_too(laptop, says, settings):
    settings.USE_I18N = False
    assert status(says(laptop, SCRIPT))["state"] == "active"
    html = says(laptop, "{% load i18n %}{% language None %}" + SCRIPT + "{% endlanguage %}")
    assert 'data-url="/account/sessions/status/' in html

"""From a sign-in to the mail to the end of the thief: nothing stands in for anything."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from django.utils import timezone

from tests.browsers import BROWSERS, PAGE
from tests.pages import press
from tests.people import CHROME, FIREFOX, IPHONE, is_in, post_sign_in, sign_in
from tests.stories.test_notices import link_in

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def told_of_devices(settings: Any, alice: User) -> None:
    settings.SESSIONKIT_NOTICES = ["new_device"]
    settings.SESSIONKIT_SITE_URL = "https://shop.example"
    User.objects.update(date_joined=timezone.now() - timedelta(days=1))


@pytest.mark.parametrize("kind", BROWSERS)
def test_thief_is_out_after_the_mail_and_the_others_stay(alice: User, kind: str):
    laptop = sign_in(alice)
    assert mail.outbox == []  # the first sign-in
    thief: Any = BROWSERS[kind](headers=PAGE | {"user-agent": CHROME})
    post_sign_in(thief, REMOTE_ADDR="203.0.113.7") if kind == "wsgi" else post_sign_in(thief)
    (message,) = mail.outbox
    assert "Chrome on Windows" in message.body
    post_sign_in(thief)  # again, in the same browser
    assert len(mail.outbox) == 1
    Client().get(link_in(message))
    assert is_in(thief)
    press(Client(), link_in(message))
    assert not is_in(thief)
    assert is_in(laptop)
    # The browser is not known now: whoever signs in with it again is reported again.
    post_sign_in(thief)
    assert len(mail.outbox) == 2


def test_who_has_just_opened_the_account_is_told_nothing(alice: User):
    User.objects.update(date_joined=timezone.now())
    for agent in (FIREFOX, IPHONE, CHROME):
        sign_in(alice, agent)
    assert mail.outbox == []

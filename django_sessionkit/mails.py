"""
What a user is told by mail: whether there is still anything to tell, the words, and the sending.
All of it is found by the handle of a session when the mail is made.
"""

import logging
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.utils import timezone, translation
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_sessionkit.conf import conf
from django_sessionkit.grouping import count_devices
from django_sessionkit.links import absolute, report_link
from django_sessionkit.models import Novelty, UserSession, UserSessionQuerySet
from django_sessionkit.signals import Notice, notice_due

if TYPE_CHECKING:
    from datetime import datetime

logger = logging.getLogger("django_sessionkit")

# Nobody is told of more than MOST new devices in this time, nor twice of what is done in one
# session: a thief must not fill a mailbox in which the first mail then drowns.
A_WHILE = timedelta(hours=1)
MOST = 5

# What mail programs and out-of-office replies go by (RFC 3834 §5).
HEADERS = {"Auto-Submitted": "auto-generated"}


class Story(NamedTuple):
    """What a mail says: about a session or None, when it happened, and the session to report."""

    title: str
    text: str
    session: UserSession | None
    at: "datetime"
    suspect: UserSession | None


def deliver(kind: str, handle: uuid.UUID) -> bool:
    """
    Tell a user what has happened, unless a receiver of ``notice_due`` does so, there is no address,
    or they were told a moment ago. ``kind`` is one of Notice. Return False if the mail server does
    not take the mail: then it is worth another try.
    """
    rows = UserSession.objects.primary()
    row = rows.select_related("user").filter(pk=handle).first()
    if row is None or not _is_due(kind, row, rows):
        return True
    answers = notice_due.send_robust(UserSession, kind=kind, handle=handle, user=row.user)
    address = getattr(row.user, row.user.get_email_field_name(), "")
    if not address or any(answer is True for _receiver, answer in answers):
        return True
    # The time zone of a user is not known: a request may have set that of a thief, or of staff.
    with translation.override(_language_of(kind, row, rows)), timezone.override(None):
        mail = _mail(kind, row, rows, address)
    try:
        mail.send()
    except Exception as error:  # whatever a mail server raises; addresses may be in the text
        name = type(error).__name__
        logger.error("The notice %s of session %s was not sent: %s", kind, handle, name)
        return False
    return True


# Whether, and in which language.


def _is_due(kind: str, row: UserSession, rows: UserSessionQuerySet) -> bool:
    if row.support and kind in (Notice.NEW_DEVICE, Notice.OLD_KEY):
        return False  # the device is that of staff
    if kind == Notice.NEW_DEVICE:
        recent = rows.filter(user=row.user_id, novelty=Novelty.DEVICE, pk__lt=row.pk)
        return recent.filter(started_at__gt=row.started_at - A_WHILE).count() < MOST
    if row.ended_at is None or kind == Notice.OLD_KEY:
        return kind == Notice.OLD_KEY  # which leads to a session once only
    if row.reported_at and row.ended_from is None:
        return False  # they have just ended it themselves, by the link in a mail
    earlier = _ended_together(row, rows).filter(ended_at__lt=row.ended_at)
    return not earlier.filter(ended_at__gt=row.ended_at - A_WHILE).exists()


def _ended_together(row: UserSession, rows: UserSessionQuerySet) -> UserSessionQuerySet:
    """Return the rows that the same person has ended in the same session as this one."""
    ended = rows.filter(user=row.user_id, end_reason=row.end_reason)
    return ended.filter(ended_by=row.ended_by_id, ended_from=row.ended_from)


def _language_of(kind: str, row: UserSession, rows: UserSessionQuerySet) -> str:
    """
    Return the language of a user, as far as it is known. A new device may be a thief's, who must
    not choose a language that the user does not read: that of the sign-in before it counts.
    So it is where staff have acted as the user.
    """
    if kind == Notice.NEW_DEVICE or row.support:
        before = rows.filter(user=row.user_id, pk__lt=row.pk, support=False).exclude(language="")
        if row.browser:
            before = before.exclude(browser=row.browser)
        row = before.order_by("-pk").first() or row
    return row.language or settings.LANGUAGE_CODE


# The words.


def _mail(
    kind: str, row: UserSession, rows: UserSessionQuerySet, address: str
) -> EmailMultiAlternatives:
    site = urlsplit(conf.SESSIONKIT_SITE_URL).netloc
    story = STORIES[kind](row, rows, site)
    facts = [(_("Account"), str(row.user.get_username())), *_facts(story)]
    context = {
        "kind": kind,
        "site": site,
        "title": story.title,
        "text": story.text,
        "facts": facts,
        "report_url": report_link(story.suspect.pk) if story.suspect else "",
        "list_url": absolute("django_sessionkit:session_list"),
    }
    html = render_to_string("django_sessionkit/mail/notice.html", context)
    context["facts"] = [(name, _isolated(value)) for name, value in facts]
    text = render_to_string("django_sessionkit/mail/notice.txt", context)
    subject = _("%(title)s (%(site)s)") % {"title": story.title, "site": site}
    mail = EmailMultiAlternatives(subject, text, to=[address], headers=HEADERS)
    mail.attach_alternative(html, "text/html")
    return mail


def _new_device(row: UserSession, rows: UserSessionQuerySet, site: str) -> Story:
    text = _(
        "Somebody signed in to your account on a new device. If that was you, there is nothing to"
        " do."
    )
    return Story(_("New sign-in to your account"), text, row, row.started_at, row)


def _others_ended(row: UserSession, rows: UserSessionQuerySet, site: str) -> Story:
    at = row.ended_at or row.last_seen_at
    count = count_devices(_ended_together(row, rows).filter(ended_at__gte=at))
    title = ngettext(
        "%(count)d device was signed out of your account",
        "%(count)d devices were signed out of your account",
        count,
    )
    own = rows.filter(user=row.user_id, support=False)
    actor = own.filter(pk=row.ended_from).first() if row.ended_from else None
    if actor:
        text = _("It was done on the device below. If that was you, there is nothing to do.")
    else:
        text = _(
            "Somebody who is signed in as you did that. If it was you, there is nothing to do."
        )
    return Story(title % {"count": count}, text, actor, at, actor)


def _ended_by_staff(row: UserSession, rows: UserSessionQuerySet, site: str) -> Story:
    at = row.ended_at or row.last_seen_at
    count = count_devices(_ended_together(row, rows).filter(ended_at__gte=at))
    text = ngettext(
        "The staff of %(site)s signed out %(count)d device of yours. You can sign in again. If you"
        " do not know why they did it, ask them.",
        "The staff of %(site)s signed out %(count)d devices of yours. You can sign in again. If you"
        " do not know why they did it, ask them.",
        count,
    )
    session = row if count == 1 and not row.support else None
    return Story(
        _("Our staff signed you out"), text % {"site": site, "count": count}, session, at, None
    )


def _old_key(row: UserSession, rows: UserSessionQuerySet, site: str) -> Story:
    text = _(
        "Somebody tried to use an old copy of your sign-in on this device. The copy may have been"
        " stolen from the device, or come from a backup of yours."
    )
    if row.ended_at:
        text = _("%(text)s For your safety, the device was signed out.") % {"text": text}
    title = _("Somebody may be using your account")
    return Story(title, text, row, timezone.now(), row)


STORIES: dict[str, Any] = {
    Notice.NEW_DEVICE: _new_device,
    Notice.OTHERS_ENDED: _others_ended,
    Notice.ENDED_BY_STAFF: _ended_by_staff,
    Notice.OLD_KEY: _old_key,
}


def _facts(story: Story) -> list[tuple[str, str]]:
    """Return what is known of the session, as names and values. What a device says of itself is
    cut down to known names; what its user calls it is not told, for a thief can write there."""
    at = timezone.localtime(story.at) if settings.USE_TZ else story.at
    time = {"time": date_format(at, "DATETIME_FORMAT"), "zone": settings.TIME_ZONE}
    facts = [(_("Time"), _("%(time)s (%(zone)s)") % time)]
    if session := story.session:
        facts.insert(0, (_("Device"), str(session.device.known)))
        if session.place:
            facts.append((_("Place"), _("near %(place)s (estimated)") % {"place": session.place}))
        if session.ip:
            facts.append((_("Internet address (IP)"), session.address))
    return facts


def _isolated(text: str) -> str:
    """Return text that does not change the direction of what is around it, as <bdi> in HTML."""
    if text.isascii() and not translation.get_language_bidi():
        return text
    return f"\N{FIRST STRONG ISOLATE}{text}\N{POP DIRECTIONAL ISOLATE}"

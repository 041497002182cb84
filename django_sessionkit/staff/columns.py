"""What the admin says of a session, in the list and on its page."""

from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.utils import display_for_value
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from django_sessionkit.models import EndReason, Transport, UserSession
from django_sessionkit.selection import Selection
from django_sessionkit.staff.sights import neighbours, sight_of

# The list has so many characters of what staff have said about an end, and the page of a session
# all.
NOTE = 60
# The reasons whose labels begin with "Ended".
SAYS_ENDED = {EndReason.REVOKED, EndReason.REVOKED_BY_STAFF, EndReason.PARENT}


def state_of(session: UserSession) -> str:
    """Return in words what has become of a session."""
    if session.ended_at:
        return _ended(session)
    if session.expires_at <= timezone.now():
        return gettext("Ended: %(reason)s") % {"reason": session.expiry_reason.label}
    match sight_of(session).is_stored:
        case None:
            return gettext("Not known")
        case False:
            return gettext("Ended: %(reason)s") % {"reason": EndReason.LOST.label}
    return gettext("Locked") if session.is_locked else gettext("Active")


def _ended(session: UserSession) -> str:
    reason, by = session.get_end_reason_display(), session.ended_by
    if session.end_reason == EndReason.REVOKED_BY_STAFF:
        return gettext("Ended by staff (%(user)s)") % {"user": by} if by else reason
    if session.end_reason not in SAYS_ENDED:
        reason = gettext("Ended: %(reason)s") % {"reason": reason}
    if by and session.ended_by_id != session.user_id:
        return gettext("%(reason)s (by %(user)s)") % {"reason": reason, "user": by}
    return reason


def _two_lines(first: Any, second: Any) -> SafeString | str:
    if not second:
        return cast("str", first)
    return format_html('{}<div class="small quiet">{}</div>', first, second)


class SessionColumns(admin.ModelAdmin):  # type: ignore[type-arg]
    """The columns of the list, and the lines on the page of one session."""

    # In the list.

    @admin.display(description=_("user"))
    def user_link(self, session: UserSession) -> str:
        asked = Selection.of_user(session.user_id).as_text()
        return self._link({**asked, "state": "all"}, session.user)

    @admin.display(description=_("device"))
    def device(self, session: UserSession) -> str:
        return str(session.device)

    @admin.display(description=_("type"))
    def kind(self, session: UserSession) -> str:
        kinds = [session.get_device_type_display()] if session.device_type else []
        if session.transport == Transport.HEADER:
            kinds.append(gettext("App"))
        return ", ".join(kinds)

    @admin.display(description=_("state"))
    def state_line(self, session: UserSession) -> str:
        text = state_of(session)
        if session.ended_at:
            time = display_for_value(session.ended_at, "")
            note = Truncator(session.end_note).chars(NOTE)
            return _two_lines(text, format_html("{}<br>{}", time, note) if note else time)
        news = [session.get_novelty_display()] if session.novelty else []
        if session.reported_at:
            news.append(gettext("Not recognised"))
        return _two_lines(text, ", ".join(news))

    @admin.display(description=_("address"))
    def address_line(self, session: UserSession) -> str:
        address = sight_of(session).address
        if not address:
            return self.get_empty_value_display()
        return _two_lines(self._address_link(session), session.place)

    @admin.display(description=_("signed in"))
    def signed_in(self, session: UserSession) -> str:
        time = display_for_value(session.started_at, "")
        return gettext("before %(time)s") % {"time": time} if session.adopted_at else time

    @admin.display(description=_("last active"))
    def last_active(self, session: UserSession) -> str:
        return display_for_value(session.last_seen_at, "")

    @admin.display(description="", empty_value="")
    def end_link(self, session: UserSession) -> str:
        if not sight_of(session).end_url:
            return ""
        return format_html(
            '<a href="{}" class="sessionkit-end" aria-label="{}">{}</a>',
            sight_of(session).end_url,
            gettext("End the session of %(user)s: %(device)s")
            % {"user": session.user, "device": session.device},
            gettext("End"),
        )

    # On the page of one session.

    @admin.display(description=_("state"))
    def state(self, session: UserSession) -> str:
        return state_of(session)

    @admin.display(description=_("address"))
    def address(self, session: UserSession) -> str:
        sight = sight_of(session)
        if not sight.address:
            return self.get_empty_value_display()
        parts: list[Any] = [self._address_link(session)]
        if session.place:
            parts.append(gettext("near %(place)s (estimated)") % {"place": session.place})
        if sight.is_whole and (others := _others(session)):
            parts.append(others)
        return format_html_join(", ", "{}", ((part,) for part in parts))

    @admin.display(description=_("password last entered"))
    def proved_at(self, session: UserSession) -> str:
        return display_for_value(session.authenticated_at, self.get_empty_value_display())

    @admin.display(description=_("locks or ends if unused at"))
    def unused_at(self, session: UserSession) -> str:
        return display_for_value(session.idle_at, self.get_empty_value_display())

    @admin.display(description=_("browser"))
    def browser_link(self, session: UserSession) -> str:
        if session.browser is None:
            return self.get_empty_value_display()
        return self._link({"browser": session.browser, "state": "all"}, session.browser)

    # Links.

    def _address_link(self, session: UserSession) -> str:
        address = sight_of(session).address
        return self._link({"network": address, "state": "all"}, address)

    def _link(self, words: dict[str, Any], text: Any) -> str:
        """Return a link to the list of the sessions that these words of Selection ask for."""
        name = "admin:django_sessionkit_usersession_changelist"
        url = reverse(name, current_app=self.admin_site.name)
        return format_html('<a href="{}?{}">{}</a>', url, urlencode(words), text)


def _others(session: UserSession) -> str:
    """Return how many other people have used the address of a session, in words, or ""."""
    count, may_be_more = neighbours(session)
    if not count:
        return ""
    if may_be_more:
        text = ngettext(
            "also used by at least %(count)d other person",
            "also used by at least %(count)d other people",
            count,
        )
    else:
        text = ngettext(
            "also used by %(count)d other person", "also used by %(count)d other people", count
        )
    return text % {"count": count}

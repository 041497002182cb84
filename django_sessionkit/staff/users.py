"""The sessions of a user, in the project's user admin."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Model, QuerySet
from django.forms import BaseInlineFormSet
from django.http import HttpRequest, HttpResponse
from django.template.loader import select_template
from django.template.response import SimpleTemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from django_sessionkit.grouping import newest_first
from django_sessionkit.models import UserSession, UserSessionQuerySet
from django_sessionkit.selection import Selection
from django_sessionkit.staff import sentences
from django_sessionkit.staff.columns import state_of
from django_sessionkit.staff.permissions import may_end_sessions
from django_sessionkit.staff.rank import has_highest_rank, is_superuser
from django_sessionkit.staff.shown import end_shown
from django_sessionkit.staff.sights import look_at, sight_of

# So many sessions are on the page of a user.
SHOWN = 10
# So many are counted: a program signs in again and again.
COUNTED = 1000
# So many users can be chosen together.
USERS = 1000

PAGES = "admin:django_sessionkit_usersession_"


class SessionsOfUser:
    """What the page of a user says of their sessions to the staff who look at it."""

    def __init__(self, site: admin.AdminSite, request: HttpRequest, user: Any) -> None:
        self.site, self.request, self.user = site, request, user

    @property
    def _rows(self) -> UserSessionQuerySet:
        """Return those of the user's sessions that the staff find in the list of sessions."""
        shown: Any = self._admin.get_queryset(self.request)
        rows: UserSessionQuerySet = shown.primary().select_related(None).filter(user=self._key)
        return rows

    @property
    def _admin(self) -> Any:
        return self.site.get_model_admin(UserSession)

    @property
    def _key(self) -> Any:
        return key_in_sessions(self.user)

    @cached_property
    def active(self) -> int:
        return self._rows.active()[: COUNTED + 1].count()

    @property
    def how_many(self) -> str:
        number = min(self.active, COUNTED)
        text = ngettext("%(count)s active session", "%(count)s active sessions", number)
        return text % {"count": sentences.counted(number, self.active > COUNTED)}

    @cached_property
    def sessions(self) -> list[UserSession]:
        """SHOWN sessions at most: those that have not ended, then the others, the newest first."""
        found = list(newest_first(self._rows.filter(ended_at=None))[:SHOWN])
        if missing := SHOWN - len(found):
            ended = self._rows.exclude(ended_at=None).select_related("ended_by")
            found += ended.order_by("-ended_at", "-pk")[:missing]
        look_at(self.request, found)
        return found

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield what each line has."""
        for row in self.sessions:
            row.user = self.user
            yield {
                "session": row,
                "state": state_of(row),
                "address": sight_of(row).address,
                "url": self._url("change", row.pk),
                "end_url": self._url("delete", row.pk) + "?back=user" if self.may_end(row) else "",
            }

    def may_end(self, row: UserSession) -> bool:
        return row.ended_at is None and self.may_end_all

    @cached_property
    def may_end_all(self) -> bool:
        has_rank = has_highest_rank(self.request) or not is_superuser(self.user)
        return has_rank and may_end_sessions(self.request)

    @property
    def list_url(self) -> str:
        asked = {**Selection.of_user(self._key).as_text(), "state": "all"}
        return f"{self._url('changelist')}?{urlencode(asked)}"

    @property
    def end_all_url(self) -> str:
        """Where all of them end, or "" for staff who do not see all of them."""
        if not self._admin.may_end_by_filter(self.request):
            return ""
        asked = Selection.of_user(self._key).as_text()
        return f"{self._url('end_shown')}?{urlencode(asked)}"

    def _url(self, name: str, *args: Any) -> str:
        return reverse(PAGES + name, args=args, current_app=self.site.name)


def key_in_sessions(user: Any) -> Any:
    """Return the key by which sessions name a user. A child of the user model may have another."""
    return getattr(user, get_user_model()._meta.pk.attname)


class NoForms(BaseInlineFormSet):  # type: ignore[type-arg]
    """
    The forms of the inline: none, whatever is posted. Its sessions can not be edited, and those
    that a page has shown may not be the newest any more when the page is saved.
    """

    def __init__(self, data: Any = None, files: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def get_queryset(self) -> QuerySet[Any]:
        return UserSession.objects.none()

    def is_valid(self) -> bool:
        return True


class UserSessionInline(admin.TabularInline):  # type: ignore[type-arg]
    """
    Shows a user's newest sessions on the user's page, with links that end them. Put this into
    ``inlines`` of the user admin, unless that has UserSessionsAdminMixin.
    """

    model = UserSession
    fk_name = "user"
    formset = NoForms
    template = "admin/django_sessionkit/usersession/of_user.html"
    verbose_name_plural = _("sessions")
    fields = ()
    extra = 0
    can_delete = False
    sessions: SessionsOfUser

    class Media:
        css = {"all": ["django_sessionkit/endings.css"]}

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        self.sessions = SessionsOfUser(self.admin_site, request, obj)
        return super().get_formset(request, obj, **kwargs)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is not None and may_view_sessions(self.admin_site, request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def may_view_sessions(site: admin.AdminSite, request: HttpRequest) -> bool:
    """Tell whether an admin site has the pages of sessions, and this request may see them."""
    if not site.is_registered(UserSession):
        return False
    return site.get_model_admin(UserSession).has_view_permission(request)


class UserSessionsAdminMixin(admin.ModelAdmin):  # type: ignore[type-arg]
    """
    Adds their sessions to the admin of any user model: the newest on the user's page, with the
    number of those that are active beside "History", and links in the list. Also adds an action
    that ends all sessions of the selected users::

        @admin.register(User)
        class MyUserAdmin(UserSessionsAdminMixin, UserAdmin): ...
    """

    def __init__(self, model: type[Model], admin_site: admin.AdminSite) -> None:
        super().__init__(model, admin_site)
        # Added here, because a subclass with ``actions`` of its own would replace a class
        # attribute. ``actions = None`` means that there are no actions at all.
        if self.actions is not None:
            self.actions = [*self.actions, "end_all_sessions"]

    def has_view_sessions_permission(self, request: HttpRequest) -> bool:
        return self._is_of_users and may_view_sessions(self.admin_site, request)

    @property
    def _is_of_users(self) -> bool:
        """Whether this is no admin of something else, whose keys are not those of users."""
        return issubclass(self.model, get_user_model())

    def has_end_sessions_permission(self, request: HttpRequest) -> bool:
        if not self.has_view_sessions_permission(request):
            return False
        of_sessions: Any = self.admin_site.get_model_admin(UserSession)
        return bool(of_sessions.may_end_by_filter(request))

    @admin.action(
        permissions=["end_sessions"],
        description=_("End all sessions of the selected %(verbose_name_plural)s"),
    )
    def end_all_sessions(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponse | None:
        key = get_user_model()._meta.pk.name
        users = list(queryset.order_by().values_list(key, flat=True)[: USERS + 1])
        if len(users) > USERS:
            text = gettext("Choose at most %(count)s at a time.")
            self.message_user(request, text % {"count": sentences.counted(USERS)}, "error")
            return None
        selection = Selection(users=tuple(map(str, users)))
        return end_shown(self.admin_site, request, selection)

    @admin.display(description=_("sessions"))
    def sessions_link(self, user: Model) -> str:
        url = reverse(f"{PAGES}changelist", current_app=self.admin_site.name)
        return format_html(
            '<a href="{}?{}" aria-label="{}">{}</a>',
            url,
            urlencode(Selection.of_user(key_in_sessions(user)).as_text()),
            gettext("Sessions of %(user)s") % {"user": user},
            gettext("Sessions"),
        )

    def get_list_display(self, request: HttpRequest) -> Any:
        columns = super().get_list_display(request)
        if self.has_view_sessions_permission(request):
            return [*columns, "sessions_link"]
        return columns

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        inlines = super().get_inlines(request, obj)
        if obj is None or not self._is_of_users or UserSessionInline in inlines:
            return inlines
        return [*inlines, UserSessionInline]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Put the number of active sessions beside "History", whatever the template is."""
        response = super().render_change_form(request, context, *args, **kwargs)
        inlines = [each.opts for each in context["inline_admin_formsets"]]
        shown = [each.sessions for each in inlines if isinstance(each, UserSessionInline)]
        if shown and isinstance(response, SimpleTemplateResponse):
            names: Any = response.template_name
            template = select_template([names] if isinstance(names, str) else names)
            extra = {"form_template": template, "sessions_of_user": shown[0]}
            response.context_data = {**(response.context_data or {}), **extra}
            response.template_name = "admin/django_sessionkit/usersession/user_form.html"
        return response

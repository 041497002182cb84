"""
The site of the tests, with more admin sites: by the name of each its links must go. One has the
user admin of a project, one no pages of sessions, and one no others.
"""

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.urls import path

from django_sessionkit.admin import UserSessionAdmin, UserSessionsAdminMixin
from django_sessionkit.models import UserSession
from tests.urls import urlpatterns as site_of_the_tests


class MyUserAdmin(UserSessionsAdminMixin, UserAdmin):  # type: ignore[type-arg]
    actions = ["congratulate"]

    def congratulate(self, request, queryset):
        raise NotImplementedError


staff_site = admin.AdminSite(name="staff")
staff_site.register(User, MyUserAdmin)
staff_site.register(UserSession, UserSessionAdmin)
bare_site = admin.AdminSite(name="bare")
bare_site.register(User, MyUserAdmin)
sessions_site = admin.AdminSite(name="sessions")
sessions_site.register(UserSession, UserSessionAdmin)

urlpatterns = [
    *site_of_the_tests,
    path("staff/", staff_site.urls),
    path("bare/", bare_site.urls),
    path("sessions/", sessions_site.urls),
]

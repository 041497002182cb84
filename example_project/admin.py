from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User

from django_sessionkit.admin import UserSessionsAdminMixin

admin.site.unregister(User)


@admin.register(User)
class ShopUserAdmin(UserSessionsAdminMixin, UserAdmin):  # type: ignore[type-arg]
    """Django's user pages, with every user's sessions."""

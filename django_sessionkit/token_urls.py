from django.urls import path

from django_sessionkit.jwks import jwks_view

app_name = "django_sessionkit_tokens"
urlpatterns = [path(".well-known/jwks.json", jwks_view, name="jwks")]

from django.urls import path

from django_sessionkit.api.sign_in import SignInView

app_name = "django_sessionkit_sign_in"
urlpatterns = [path("v1/sign-in/", SignInView.as_view(), name="sign_in")]

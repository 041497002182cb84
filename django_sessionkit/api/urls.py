from django.urls import path

from django_sessionkit.api.gates import LimitView, ReauthenticateView
from django_sessionkit.api.views import (
    CurrentSessionView,
    EndOthersView,
    HistoryView,
    SessionsView,
    SessionView,
)

app_name = "django_sessionkit_api"
# answers.py knows "reauthenticate" and "session_limit", which answer while a session is locked.
urlpatterns = [
    path("v1/sessions/", SessionsView.as_view(), name="sessions"),
    path("v1/sessions/current/", CurrentSessionView.as_view(), name="current_session"),
    path("v1/sessions/history/", HistoryView.as_view(), name="history"),
    path("v1/sessions/end-others/", EndOthersView.as_view(), name="end_others"),
    path("v1/sessions/<uuid:pk>/", SessionView.as_view(), name="session"),
    path("v1/reauthenticate/", ReauthenticateView.as_view(), name="reauthenticate"),
    path("v1/limit/", LimitView.as_view(), name="session_limit"),
]

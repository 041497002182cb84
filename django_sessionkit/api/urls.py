from importlib.util import find_spec

from django.urls import path

from django_sessionkit.api.gates import LimitView, ReauthenticateView
from django_sessionkit.api.hand_over import HandOverView
from django_sessionkit.api.views import (
    CurrentSessionView,
    EndOthersView,
    HistoryView,
    SessionsView,
    SessionView,
)

# Tokens take PyJWT, which the extra ``api`` does without.
with_tokens = []
if find_spec("jwt"):
    from django_sessionkit.api.token import TokenView

    with_tokens = [path("v1/token/", TokenView.as_view(), name="token")]

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
    path("v1/hand-over/", HandOverView.as_view(), name="hand_over"),
    *with_tokens,
]

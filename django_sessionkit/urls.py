from django.urls import path

from django_sessionkit.gates import ReauthenticateView, SessionLimitView
from django_sessionkit.handover import HandOverView
from django_sessionkit.reports import ReportView
from django_sessionkit.status import session_status
from django_sessionkit.views import (
    SessionEndDeviceView,
    SessionEndInactiveView,
    SessionEndOthersView,
    SessionEndView,
    SessionListView,
    SessionRenameView,
)

app_name = "django_sessionkit"
urlpatterns = [
    path("", SessionListView.as_view(), name="session_list"),
    path("others/end/", SessionEndOthersView.as_view(), name="session_end_others"),
    path("inactive/end/", SessionEndInactiveView.as_view(), name="session_end_inactive"),
    path("<uuid:pk>/name/", SessionRenameView.as_view(), name="session_rename"),
    path("<uuid:pk>/device/end/", SessionEndDeviceView.as_view(), name="session_end_device"),
    path("<uuid:pk>/end/", SessionEndView.as_view(), name="session_end"),
    path("report/<str:token>/", ReportView.as_view(), name="session_report"),
    path("hand-over/<str:code>/", HandOverView.as_view(), name="session_hand_over"),
    path("reauthenticate/", ReauthenticateView.as_view(), name="reauthenticate"),
    path("status/", session_status, name="session_status"),
    path("limit/", SessionLimitView.as_view(), name="session_limit"),
]

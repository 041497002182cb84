"""An engine that is neither ours nor one of Django's own."""

from django.contrib.sessions.backends import db


class SessionStore(db.SessionStore):
    pass

"""The Redis engine without its async half: what Django would derive, the sync one in a thread."""

from django_sessionkit.backends import redis


class SessionStore(redis.SessionStore):
    native_async = False

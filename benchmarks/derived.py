"""The Redis engine without its async half: the sync half runs in a thread instead."""

from django_sessionkit.backends import redis


class SessionStore(redis.SessionStore):
    native_async = False

from django.contrib.sessions.backends.base import UpdateError


class StoreUnavailable(Exception):  # noqa: N818 (it is a state, like Django's SessionInterrupted)
    """
    The session store did not answer. That is not "no session": nothing may be concluded about the
    visitor, so the middleware answers 503 and leaves the cookie alone.

    Raised by every operation of an engine that reaches its store, and by
    ``UserSession.objects.revoke()``, which has marked its rows ended by then.
    """


class TooManySessions(UpdateError):  # noqa: N818 (as above)
    """
    A sign-in was refused, by Policy.limit with on_limit="refuse", and nothing was written. Raised
    by what writes the session; its argument is the limit.
    """

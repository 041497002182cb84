from django.contrib.sessions.backends.base import UpdateError


class StoreUnavailable(Exception):  # noqa: N818 (named like Django's SessionInterrupted)
    """
    The session store did not answer. This does not mean that the visitor has no session: nothing is
    known about the visitor. The middleware therefore answers 503 and leaves the cookie alone.

    Raised by every operation of an engine that reaches its store. ``UserSession.objects.revoke()``
    raises it after it has marked its rows ended.
    """


class TooManySessions(UpdateError):  # noqa: N818 (as above)
    """
    A sign-in was refused, because of Policy.limit with on_limit="refuse". Nothing was written.

    Raised by the operation that would have written the session. Its argument is the limit, an int.
    """

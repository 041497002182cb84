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


class NoToken(Exception):  # noqa: N818 (as above)
    """
    A session gets no token. ``code`` says why: "not_signed_in", "locked" (also for one whose user
    has to make room first), or "ended".

    Raised by ``tokens.issue()``.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"This session gets no token: {code}.")
        self.code = code


class InvalidToken(Exception):  # noqa: N818 (as above)
    """
    A token is not valid. ``code`` says why, in one of the words that docs/tokens.md lists. It is
    for logs: tell a stranger no more than that the token is invalid.

    Raised by ``tokens.verify()``.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"This token is not valid: {code}.")
        self.code = code

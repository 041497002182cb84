"""
How long the sessions of a user live, and how many there may be.

This module only describes policies; other modules carry them out. Django need not be set up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.http import HttpRequest

MINUTE, HOUR, DAY = 60, 60 * 60, 24 * 60 * 60

# The greatest age in seconds, and the greatest number of sessions, that a policy can have.
HUNDRED_YEARS = 100 * 365 * DAY

OnLimit = Literal["end_oldest", "end_idlest", "refuse", "ask"]
OnReuse = Literal["end", "report"]
OnPrivilegeChange = Literal["renew", "end", "keep"]
OnChange = Literal["report", "ask", "end"]
Trait = Literal["browser", "system", "network"]

# The fields that are whole numbers, and the least value of each.
LEAST = {"idle": 1, "absolute": 1, "limit": 1, "renew_after": 1, "renew_grace": 1, "recent": 1}

WORDS: dict[str, tuple[str, ...]] = {
    "on_limit": get_args(OnLimit),
    "on_reuse": get_args(OnReuse),
    "on_privilege_change": get_args(OnPrivilegeChange),
    "on_change": get_args(OnChange),
}

# The fields that are True or False, the field that each of them needs, and what that is.
FLAGS = {
    "extendable": ("absolute", "the time that it extends"),
    "lock": ("idle", "the time after which it locks"),
}

TRAITS: tuple[str, ...] = get_args(Trait)

# The fields that a session keeps after the sign-in.
FACTS = (
    "idle",
    "absolute",
    "extendable",
    "lock",
    "renew_after",
    "renew_grace",
    "on_reuse",
    "bind",
    "on_change",
    "recent",
)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """
    The rules for the sessions of a user. Ages are whole seconds. None means that there is no such
    rule. Raises ValueError for values that make no sense.

    Each field names the source of its rule. ASVS is OWASP ASVS 5.0, NIST is NIST SP 800-63B-4, and
    "cheat sheet" is OWASP's Session Management Cheat Sheet.

    idle: seconds without activity after which a session ends, or is locked (ASVS 7.3.1; NIST 5.2,
        inactivity timeout). SESSION_COOKIE_AGE holds as well: the shorter time counts. With None,
        SESSION_COOKIE_AGE holds alone.
    absolute: seconds after authentication at which a session ends, however active it is (ASVS
        7.3.2; NIST 5.2, overall timeout). Only another authentication begins this time anew.
    extendable: whether a longer age that the site asks for, by SESSION_COOKIE_AGE or set_expiry(),
        takes the place of ``absolute``. It counts from authentication, too. Needs ``absolute``.
    lock: whether ``idle`` locks a session instead of ending it. A locked session loses nothing. The
        password alone opens it again, on the same device (NIST 2.2.3, for AAL2). Needs ``idle``.

    limit: the number of sessions that a user may have at a time (ASVS 7.1.2).
    on_limit: what happens when a user who has that many signs in once more (ASVS 7.1.2).
        "end_oldest" ends the session with the oldest sign-in. "end_idlest" ends the session with
        the oldest activity. "refuse" refuses the sign-in. "ask" asks the user which session to end.

    renew_after: seconds after which a session gets a new key by itself (cheat sheet, "renewal
        timeout").
    renew_grace: seconds for which the old key still works after the first use of the new key, for
        requests that are under way (cheat sheet).
    on_reuse: what happens when somebody uses the old key later than that, as a thief might (cheat
        sheet; RFC 9700 4.14.2 asks it of refresh tokens). "end" ends the session and reports the
        use. "report" only reports it.

    on_privilege_change: what happens to the sessions of a user whose groups, permissions or staff
        flags change (ASVS 8.3.2; cheat sheet). "renew" gives them new keys, "end" ends them, "keep"
        leaves them as they are.
    bind: what must not change while a session lives, out of "browser", "system" and "network" (ASVS
        8.2.4; NIST 5.3, session monitoring).
    on_change: what happens when a trait in ``bind`` changes. "report" reports it, "ask" asks for
        the password, "end" ends the session.
    recent: seconds for which a proof of identity counts as recent. Views that ask for a recent
        proof use this age, as the page of devices does (ASVS 7.5.1 and 7.5.2).
    """

    idle: int | None = None
    absolute: int | None = None
    extendable: bool = False
    lock: bool = False
    limit: int | None = None
    on_limit: OnLimit = "end_oldest"
    renew_after: int | None = None
    renew_grace: int = 30
    on_reuse: OnReuse = "end"
    on_privilege_change: OnPrivilegeChange = "renew"
    bind: tuple[Trait, ...] = ()
    on_change: OnChange = "report"
    recent: int = HOUR

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value, optional = getattr(self, name), DEFAULTS[name] is None
            if value is None and optional:
                continue
            if type(value) is not int or not least <= value <= HUNDRED_YEARS:  # not bool: True is 1
                meant = f"a whole number from {least} to {HUNDRED_YEARS}"
                raise ValueError(_not(name, value, f"{meant}, or None" if optional else meant))
        for name, words in WORDS.items():
            if (value := getattr(self, name)) not in words:
                raise ValueError(_not(name, value, " or ".join(map(repr, words))))
        if type(self.bind) is not tuple or not all(trait in TRAITS for trait in self.bind):
            raise ValueError(_not("bind", self.bind, f"a tuple of some of {TRAITS}"))
        self._check_flags()
        if self.idle and self.absolute and self.idle > self.absolute:
            raise ValueError(
                f"A policy with idle = {self.idle} and absolute = {self.absolute} never reaches "
                f"its idle timeout."
            )

    def _check_flags(self) -> None:
        for name, (needed, what) in FLAGS.items():
            if type(value := getattr(self, name)) is not bool:
                raise ValueError(_not(name, value, "True or False"))
            if value and getattr(self, needed) is None:
                raise ValueError(f"A policy with {name} = True needs {needed}, {what}.")

    def facts(self) -> dict[str, Any]:
        """
        Return the fields that a session keeps of its policy, as a dict for JSON. Fields that are as
        in ``Policy()`` are left out. SESSIONKIT_POLICY is asked for all other fields when needed.
        """
        values = {name: getattr(self, name) for name in FACTS}
        kept = {name: value for name, value in values.items() if value != DEFAULTS[name]}
        return {**kept, "bind": list(self.bind)} if self.bind else kept

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """
        Return the policy that ``facts()`` described. Ignore names and words that only a later
        version of this package knows: sessions outlive the return to an earlier version.
        """
        known = {name: facts[name] for name in FACTS if name in facts}
        for name in WORDS.keys() & known.keys():
            if known[name] not in WORDS[name]:
                del known[name]
        known["bind"] = tuple(trait for trait in known.get("bind", ()) if trait in TRAITS)
        return cls(**known)


def _not(name: str, value: object, meant: str) -> str:
    return f"A policy cannot have {name} = {value!r}: it has to be {meant}."


DEFAULTS = {field.name: field.default for field in fields(Policy)}

# The timeouts of the three levels of NIST SP 800-63B-4, sections 2.1.3, 2.2.3 and 2.3.3.
AAL1 = Policy(absolute=30 * DAY)
AAL2 = Policy(idle=HOUR, absolute=24 * HOUR, lock=True)
AAL3 = Policy(idle=15 * MINUTE, absolute=12 * HOUR)

# For everybody else who has no other policy. A site that asks for longer sessions gets them.
ORDINARY = Policy(absolute=30 * DAY, extendable=True)

# For staff, whose sessions are worth stealing.
STAFF = Policy(idle=HOUR, absolute=12 * HOUR, recent=15 * MINUTE)


# SESSIONKIT_POLICY names one of these functions, or a function of the site like these. In a shell,
# a task or a command, the request is None.


def aal1(user: "AbstractBaseUser", request: "HttpRequest | None" = None) -> Policy:
    return AAL1


def aal2(user: "AbstractBaseUser", request: "HttpRequest | None" = None) -> Policy:
    return AAL2


def aal3(user: "AbstractBaseUser", request: "HttpRequest | None" = None) -> Policy:
    return AAL3


def staff(user: "AbstractBaseUser", request: "HttpRequest | None" = None) -> Policy:
    return STAFF


def default(user: "AbstractBaseUser", request: "HttpRequest | None" = None) -> Policy:
    """Return STAFF for those who may enter the admin, ORDINARY for all others."""
    return STAFF if getattr(user, "is_staff", False) else ORDINARY

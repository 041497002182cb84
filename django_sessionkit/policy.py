"""
How long the sessions of a user live, and how many there may be. Pure: what a policy says is done
elsewhere, and nothing here needs Django to be set up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.http import HttpRequest

MINUTE, HOUR, DAY = 60, 60 * 60, 24 * 60 * 60

# No date is further away than that, and no number of sessions higher.
HUNDRED_YEARS = 100 * 365 * DAY

OnLimit = Literal["end_oldest", "end_idlest", "refuse", "ask"]
OnReuse = Literal["end", "report"]
OnPrivilegeChange = Literal["renew", "end", "keep"]
OnChange = Literal["report", "ask", "end"]
Trait = Literal["browser", "system", "network"]

# The whole numbers, and the least that makes sense.
LEAST = {"idle": 1, "absolute": 1, "limit": 1, "renew_after": 1, "renew_grace": 1, "recent": 1}

WORDS: dict[str, tuple[str, ...]] = {
    "on_limit": get_args(OnLimit),
    "on_reuse": get_args(OnReuse),
    "on_privilege_change": get_args(OnPrivilegeChange),
    "on_change": get_args(OnChange),
}

TRAITS: tuple[str, ...] = get_args(Trait)

# What a session has to know of its policy after the sign-in.
FACTS = (
    "idle",
    "absolute",
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
    What holds for the sessions of a user. Ages are whole seconds; None means that there is no such
    rule. A policy that makes no sense is a ValueError.

    Where a rule comes from is said with it: ASVS is OWASP ASVS 5.0, NIST is SP 800-63B-4, and the
    cheat sheet is OWASP's on session management.

    idle: seconds without activity after which it ends, or is locked (ASVS 7.3.1; NIST 5.2, the
        inactivity timeout). SESSION_COOKIE_AGE holds as well, and alone where this is None: the
        shorter one counts.
    absolute: seconds after authentication at which it ends, however active it is (ASVS 7.3.2;
        NIST 5.2, the overall timeout). Only another authentication begins them anew.
    lock: after ``idle`` and before it ends, it is locked instead: nothing is lost, and the password
        alone opens it again, on the same device (NIST 2.2.3, for AAL2). Needs ``idle``.

    limit: sessions that a user may have at a time (ASVS 7.1.2).
    on_limit: what happens when one more begins (ASVS 7.1.2): "end_oldest", that whose sign-in is
        the longest ago; "end_idlest", that whose activity is; "refuse" the new one; or "ask" which
        is to end.

    renew_after: seconds after which the session key changes by itself (the cheat sheet, "renewal
        timeout").
    renew_grace: seconds for which a key that has been renewed still leads to its session, counted
        from the first use of the new one, for the requests that are under way (the cheat sheet).
    on_reuse: what happens when it is used later than that, which a thief might do (the cheat sheet;
        as RFC 9700 4.14.2 has it for refresh tokens): "end" the session, or only "report" it.

    on_privilege_change: what happens to the sessions of a user whose groups, permissions or staff
        flags change (ASVS 8.3.2; the cheat sheet): "renew" their keys, "end" them, or "keep" them
        as they are.
    bind: what is not to change while a session lives, of "browser", "system" and "network" (ASVS
        8.2.4; NIST 5.3, session monitoring).
    on_change: what happens when something of ``bind`` does: "report" it, "ask" for the password,
        or "end" the session.
    recent: seconds for which a proof of identity is recent enough for what asks for one, as the
        page of devices does (ASVS 7.5.1 and 7.5.2).
    """

    idle: int | None = None
    absolute: int | None = None
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
            if type(value) is not int or not least <= value <= HUNDRED_YEARS:  # True would be 1
                meant = f"a whole number from {least} to {HUNDRED_YEARS}"
                raise ValueError(_not(name, value, f"{meant}, or None" if optional else meant))
        for name, words in WORDS.items():
            if (value := getattr(self, name)) not in words:
                raise ValueError(_not(name, value, " or ".join(map(repr, words))))
        if type(self.bind) is not tuple or not all(trait in TRAITS for trait in self.bind):
            raise ValueError(_not("bind", self.bind, f"a tuple of some of {TRAITS}"))
        if type(self.lock) is not bool:
            raise ValueError(_not("lock", self.lock, "True or False"))
        if self.lock and self.idle is None:
            raise ValueError("A policy with lock = True needs idle: that is when it locks.")
        if self.idle and self.absolute and self.idle > self.absolute:
            raise ValueError(
                f"A policy with idle = {self.idle} and absolute = {self.absolute} has an idle "
                f"timeout that nobody can reach."
            )

    def facts(self) -> dict[str, Any]:
        """
        Return what a session has to keep of its policy, as JSON can say it: what is not as in
        ``Policy()``. The rest is asked of SESSIONKIT_POLICY when it is needed.
        """
        values = {name: getattr(self, name) for name in FACTS}
        kept = {name: value for name, value in values.items() if value != DEFAULTS[name]}
        return {**kept, "bind": list(self.bind)} if self.bind else kept

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """
        Return the policy of what ``facts()`` returned. What only a later version can have written
        counts as not there: a session outlives the return to an earlier one.
        """
        known = {name: facts[name] for name in FACTS if name in facts}
        for name in WORDS.keys() & known.keys():
            if known[name] not in WORDS[name]:
                del known[name]
        known["bind"] = tuple(trait for trait in known.get("bind", ()) if trait in TRAITS)
        return cls(**known)


def _not(name: str, value: object, meant: str) -> str:
    return f"A policy can not have {name} = {value!r}: it has to be {meant}."


DEFAULTS = {field.name: field.default for field in fields(Policy)}

# The levels of NIST SP 800-63B-4, sections 2.1.3, 2.2.3 and 2.3.3.
AAL1 = Policy(absolute=30 * DAY)
AAL2 = Policy(idle=HOUR, absolute=24 * HOUR, lock=True)
AAL3 = Policy(idle=15 * MINUTE, absolute=12 * HOUR)

# For those whose sessions are worth stealing. Theirs end with every change of what they may do.
STAFF = Policy(idle=HOUR, absolute=12 * HOUR, recent=15 * MINUTE, on_privilege_change="end")


# What SESSIONKIT_POLICY can name, or a function of your own like these. The request is None where
# there is none: in a shell, a task, a command.


def aal1(user: "AbstractBaseUser", request: "HttpRequest | None" = None) -> Policy:
    return AAL1


def aal2(user: "AbstractBaseUser", request: "HttpRequest | None" = None) -> Policy:
    return AAL2


def aal3(user: "AbstractBaseUser", request: "HttpRequest | None" = None) -> Policy:
    return AAL3


def staff(user: "AbstractBaseUser", request: "HttpRequest | None" = None) -> Policy:
    return STAFF


def default(user: "AbstractBaseUser", request: "HttpRequest | None" = None) -> Policy:
    """Return STAFF for those who may enter the admin, AAL1 for all others."""
    return STAFF if getattr(user, "is_staff", False) else AAL1

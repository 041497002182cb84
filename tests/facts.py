"""Facts of sessions, in milliseconds, for the tests of what is reckoned from them."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from django_sessionkit.backends.facts import Facts
from django_sessionkit.policy import AAL1, AAL2, AAL3, HUNDRED_YEARS, STAFF, Policy

# In milliseconds.
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOW = 1_790_000_000_000
FORTNIGHT = 14 * DAY
COOKIE_AGE = 14 * 24 * 60 * 60  # seconds

IDLE = {"idle": 600}
LOCK = {"idle": 600, "lock": True}

HOME, ELSEWHERE = "192.0.2.7", "198.51.100.7"


def date(milliseconds: int) -> str:
    """Return what set_expiry() stores of a date that is so far from now."""
    return (
        datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(milliseconds=milliseconds)
    ).isoformat()


# What the properties are tried with.

MOMENTS = st.integers(1, 4_000_000_000_000)  # to the year 2096
SECONDS = st.integers(1, HUNDRED_YEARS) | st.integers(1, 1000)
TRAITS = st.fixed_dictionaries(
    {},
    optional={
        "browser": st.sampled_from(["", "Firefox", "Chrome"]),
        "system": st.sampled_from(["", "Windows", "Linux"]),
        "network": st.sampled_from(["", "192.0.2.0/24"]),
    },
)
# What sessions keep of their policies.
POLICIES = st.sampled_from(
    [
        policy.facts()
        for policy in [
            *[Policy(), AAL1, AAL2, AAL3, STAFF, Policy(renew_after=60)],
            *[Policy(idle=idle) for idle in (1, 7, 600, HUNDRED_YEARS)],
            *[Policy(idle=idle, lock=True) for idle in (1, 50, 601, HUNDRED_YEARS)],
        ]
    ]
)
SOME_FACTS = st.tuples(
    st.just(0) | MOMENTS,
    st.just(0) | MOMENTS,
    POLICIES,
    st.none() | MOMENTS,
    st.none() | MOMENTS,
    st.none() | st.integers(1, 5),
).map(
    lambda known: Facts(
        authenticated_at=known[0],
        row_expires_at=known[1],
        policy=known[2],
        deadline=known[3],
        keyed_at=known[4],
        pending=known[5],
    )
)

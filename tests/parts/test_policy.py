"""What a policy can say, what a session keeps of it, and the presets."""

import json
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from inspect import getdoc
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import RequestFactory
from django.utils.module_loading import import_string

from django_sessionkit import policy
from django_sessionkit.policy import AAL1, AAL2, AAL3, FACTS, ORDINARY, STAFF, Policy
from tests.servers import PROJECT

pytestmark = pytest.mark.once

FULL = Policy(
    idle=600,
    absolute=3600,
    extendable=True,
    lock=True,
    limit=3,
    on_limit="ask",
    renew_after=300,
    renew_grace=10,
    on_reuse="report",
    on_privilege_change="keep",
    bind=("browser", "network"),
    on_change="end",
    recent=60,
)


def policy_with(**values: Any) -> Policy:
    """Return a policy of what may make no sense."""
    return Policy(**values)


def test_what_is_left_out_is_no_rule():
    plain = Policy()
    assert (plain.idle, plain.absolute, plain.limit, plain.renew_after) == (None, None, None, None)
    assert (plain.lock, plain.bind) == (False, ())


def test_policy_stays_what_it_is():
    with pytest.raises(FrozenInstanceError):
        AAL1.idle = 60
    assert len({AAL1, Policy(absolute=30 * 24 * 3600), STAFF}) == 2  # can be a key


def test_every_field_is_documented():
    documented = re.findall(r"^(\w+): ", getdoc(Policy) or "", re.MULTILINE)
    assert documented == [field.name for field in fields(Policy)]
    (table,) = re.findall(
        r"^## What a policy says\n(.*?)^## ",
        (PROJECT / "docs/policy.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    rows = re.findall(r"^\| `(\w+)` \| `([^|]*)` \|", table, re.MULTILINE)
    assert rows == [(field.name, repr(field.default)) for field in fields(Policy)]


@pytest.mark.parametrize("name", ["idle", "absolute", "limit", "renew_after"])
def test_rule_can_be_none(name: str):
    assert getattr(policy_with(**{name: None}), name) is None


@pytest.mark.parametrize(
    "name", ["idle", "absolute", "limit", "renew_after", "renew_grace", "recent"]
)
def test_number_that_makes_no_sense_is_refused(name: str):
    most = 100 * 365 * 24 * 3600
    assert getattr(policy_with(**{name: 1}), name) == 1
    assert getattr(policy_with(**{name: most}), name) == most
    for value in (-1, 0, most + 1, 1.0, True, "60", float("inf")):
        with pytest.raises(ValueError, match=rf"{name} = .* has to be a whole number from 1 to"):
            policy_with(**{name: value})


@pytest.mark.parametrize("name", ["renew_grace", "recent"])
def test_number_that_has_to_be_there_is_not_none(name: str):
    with pytest.raises(ValueError, match=rf"{name} = None: it has to be a whole number from 1 to"):
        policy_with(**{name: None})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("on_limit", "'end_oldest' or 'end_idlest' or 'refuse' or 'ask'"),
        ("on_reuse", "'end' or 'report'"),
        ("on_privilege_change", "'renew' or 'end' or 'keep'"),
        ("on_change", "'report' or 'ask' or 'end'"),
    ],
)
def test_word_that_nobody_knows_is_refused(name: str, meant: str):
    for value in ("ende", "", None, True, ["end"]):
        with pytest.raises(ValueError, match=f"{name} = .*: it has to be {meant}"):
            policy_with(**{name: value})


@pytest.mark.parametrize("value", ["browser", ["browser"], ("color",), ("browser", ["x"]), None])
def test_binding_that_nobody_knows_is_refused(value: Any):
    with pytest.raises(ValueError, match=r"bind = .*a tuple of some of"):
        Policy(bind=value)


@pytest.mark.parametrize("name", ["extendable", "lock"])
@pytest.mark.parametrize("value", [1, None, "yes"])
def test_flag_is_yes_or_no(name: str, value: Any):
    with pytest.raises(ValueError, match=rf"{name} = .*True or False"):
        policy_with(idle=60, absolute=60, **{name: value})


def test_rules_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="lock = True needs idle"):
        Policy(lock=True, absolute=60)
    with pytest.raises(ValueError, match="extendable = True needs absolute"):
        Policy(extendable=True, idle=60)
    with pytest.raises(ValueError, match="idle = 61 and absolute = 60"):
        Policy(idle=61, absolute=60)
    assert Policy(idle=60, absolute=60).idle == 60


# What a session keeps.


def test_session_keeps_of_its_policy_what_it_needs_and_what_is_not_the_default():
    assert Policy().facts() == {}
    assert Policy(limit=3, on_limit="ask", on_privilege_change="end").facts() == {}
    assert AAL2.facts() == {"idle": 3600, "absolute": 86_400, "lock": True}
    assert list(FULL.facts()) == list(FACTS)


@pytest.mark.parametrize("each", [Policy(), AAL1, AAL2, AAL3, ORDINARY, STAFF, FULL])
def test_what_a_session_keeps_is_the_policy_again(each: Policy):
    stored = json.loads(json.dumps(each.facts()))
    assert stored == each.facts()
    kept = Policy.of(stored)
    for name in FACTS:
        assert getattr(kept, name) == getattr(each, name)
    assert kept.facts() == each.facts()


def test_what_a_later_version_has_kept_counts_as_not_there():
    later = {
        "idle": 60,
        "color": "green",
        "on_reuse": "laugh",
        "on_change": "end",
        "bind": ["browser", "color"],
        "limit": -1,
    }
    assert Policy.of(later) == Policy(idle=60, on_change="end", bind=("browser",))


# The presets.


@pytest.mark.standard("NIST-2.1.3", "NIST-2.2.3", "NIST-2.3.3")
def test_presets_are_those_of_nist():
    assert (AAL1.idle, AAL1.absolute, AAL1.lock) == (None, 30 * 24 * 3600, False)
    assert (AAL2.idle, AAL2.absolute, AAL2.lock) == (3600, 24 * 3600, True)
    assert (AAL3.idle, AAL3.absolute, AAL3.lock) == (15 * 60, 12 * 3600, False)


@pytest.mark.parametrize(
    ("name", "of_a_user", "of_staff"),
    [
        ("aal1", AAL1, AAL1),
        ("aal2", AAL2, AAL2),
        ("aal3", AAL3, AAL3),
        ("staff", STAFF, STAFF),
        ("default", ORDINARY, STAFF),
    ],
)
def test_preset_is_a_function_of_the_user(name: str, of_a_user: Policy, of_staff: Policy):
    function = import_string(f"django_sessionkit.policy.{name}")
    assert function(User(), None) == function(User()) == of_a_user
    assert function(User(is_staff=True), None) == of_staff


def test_user_model_need_not_know_of_staff():
    assert policy.default(SimpleNamespace()) == ORDINARY


def test_policy_needs_no_django():
    check = (
        "import sys; from django_sessionkit.policy import AAL2; "
        "assert AAL2.of(AAL2.facts()) == AAL2; "
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'django']"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", check], cwd=PROJECT, check=True)


# The example of the documents.


def test_example_of_the_documents(settings: Any):
    settings.ALLOWED_HOSTS = ["example.com", "till.example.com"]
    text = (PROJECT / "docs/policy.md").read_text()
    (example,) = re.findall(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)  # noqa: S102
    policy_of = names["sessions"]
    at_home = RequestFactory().get("/", headers={"host": "example.com"})
    at_the_till = RequestFactory().get("/", headers={"host": "till.example.com"})
    assert policy_of(User(is_staff=True), at_the_till) == STAFF
    assert policy_of(User(), at_the_till) == Policy(idle=300, absolute=28_800)
    assert policy_of(User(), at_home) == policy_of(User(), None) != AAL1
    assert policy_of(User(), None) == Policy(absolute=AAL1.absolute, limit=5, on_limit="ask")

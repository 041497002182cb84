"""The JSON that the API answers with, and takes."""

import uuid
from datetime import UTC, datetime
from typing import Any

from django.core.validators import ProhibitNullCharactersValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from django_sessionkit.forms import as_username, readable
from django_sessionkit.models import Transport, UserSession
from django_sessionkit.own_sessions import is_new
from django_sessionkit.visit.methods import method_of

KINDS = ("desktop", "mobile", "tablet", "bot", "other")
# Sessions that are chosen by one request.
MOST = 1000


class Moment(serializers.DateTimeField):
    """A time in UTC, whatever the time zone of the site."""

    def to_representation(self, value: datetime) -> str:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


class Text(serializers.CharField):
    """A string. REST framework's takes numbers, too, and refuses NUL, which we leave out."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        for each in list(self.validators):
            if isinstance(each, ProhibitNullCharactersValidator):
                self.validators.remove(each)

    def to_internal_value(self, data: Any) -> str:
        return data if isinstance(data, str) else self.fail("invalid")


class Username(serializers.CharField):
    """What the user types as their name, read as by Django's form. NUL is in none."""

    def to_internal_value(self, data: Any) -> str:
        return as_username(data) if isinstance(data, str) else self.fail("invalid")


class Handle(serializers.UUIDField):
    def to_internal_value(self, data: Any) -> uuid.UUID:
        return super().to_internal_value(data) if isinstance(data, str) else self.fail("invalid")


class Flag(serializers.BooleanField):
    """True or false. REST framework's takes numbers and words, too."""

    def to_internal_value(self, data: Any) -> bool:
        return data if isinstance(data, bool) else self.fail("invalid", input=data)


# What the API answers with.


class SessionSerializer(serializers.Serializer):
    """A session of the user, as for_its_user() has it."""

    id = serializers.UUIDField(help_text="The handle of the session.")
    name = serializers.CharField(help_text="What the user calls the device, or what it is.")
    label = serializers.CharField(allow_blank=True, help_text="The name that the user has given.")
    details = serializers.CharField(
        source="device.details", help_text='"Chrome 142, Windows 11", or "".'
    )
    kind = serializers.ChoiceField(KINDS, source="device.kind")
    place = serializers.CharField(help_text='Roughly where the address is, or "".')
    address = serializers.CharField(help_text='The IP address, its network, or "".')
    started_at = Moment(help_text="When the user signed in.")
    adopted_at = Moment(
        allow_null=True, help_text="If set, the user had signed in some time before started_at."
    )
    last_active = Moment(source="last_seen_at")
    expires_at = serializers.SerializerMethodField()
    is_current = serializers.BooleanField(help_text="Whether this request is of the session.")
    is_new = serializers.SerializerMethodField()
    sign_in_method = serializers.SerializerMethodField(
        help_text='"with a password", say, in the language of the request, or "".'
    )
    transport = serializers.ChoiceField(Transport.values, help_text="How the key travels.")
    support = serializers.BooleanField(help_text="Whether support uses the account by the session.")

    @extend_schema_field({"type": "string", "format": "date-time", "nullable": True})
    def get_expires_at(self, session: UserSession) -> str | None:
        return None if session.support else Moment().to_representation(session.expires_at)

    def get_is_new(self, session: UserSession) -> bool:
        return is_new(session)

    def get_sign_in_method(self, session: UserSession) -> str:
        return method_of(session.backend)


class CurrentSessionSerializer(SessionSerializer):
    csrf_token = serializers.CharField(
        allow_null=True, help_text="For the header X-CSRFToken; null without cookies."
    )


class EndedSessionSerializer(serializers.Serializer):
    """A session that has ended, of with_enders()."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    details = serializers.CharField(source="device.details")
    kind = serializers.ChoiceField(KINDS, source="device.kind")
    place = serializers.CharField()
    started_at = Moment()
    ended_at = Moment()
    reason = serializers.CharField(source="end_reason", help_text="Why it ended: see the docs.")
    how_it_ended = serializers.CharField(help_text="Who ended it and why, in a sentence.")
    support = serializers.BooleanField()


class PageSerializer(serializers.Serializer):
    next = serializers.URLField(allow_null=True, help_text="The next page, or null.")
    previous = serializers.URLField(allow_null=True, help_text="The page before, or null.")


class SessionPageSerializer(PageSerializer):
    results = SessionSerializer(many=True)
    other_count = serializers.IntegerField(help_text="All but the current session, on all pages.")


class EndedSessionPageSerializer(PageSerializer):
    results = EndedSessionSerializer(many=True)


class SignedInSerializer(serializers.Serializer):
    key = serializers.CharField(help_text="The session key, for `Authorization: Bearer`. A secret.")
    device = serializers.CharField(help_text="To be sent with the next sign-in on this device.")
    locked = serializers.ChoiceField(
        ["limit"], allow_null=True, help_text="Not null: first choose which sessions are to end."
    )


class EndedSerializer(serializers.Serializer):
    ended = serializers.IntegerField(help_text="How many sessions were signed in until now.")


class DelayedSerializer(serializers.Serializer):
    """The store does not answer: what was asked for is done in a while."""

    within = serializers.IntegerField(help_text="Seconds until the sessions are out, at most.")


class LimitSerializer(SessionPageSerializer):
    limit = serializers.IntegerField(help_text="How many sessions the user may have at a time.")
    needed = serializers.IntegerField(help_text="How many to choose on this page, at least.")


class HandedOverSerializer(serializers.Serializer):
    url = serializers.URLField(help_text="For the web view to load: never show or log it.")


class TokenSerializer(serializers.Serializer):
    token = serializers.CharField(help_text="A JWT: its claim exp says until when it is good.")


# What it takes.


class LabelSerializer(serializers.Serializer):
    label = Text(max_length=64, allow_blank=True, required=False)

    def validate_label(self, label: str) -> str:
        return readable(label)


class PasswordSerializer(serializers.Serializer):
    password = Text(min_length=1, write_only=True)


class AppSerializer(serializers.Serializer):
    """What an app says of itself: see app_of()."""

    name = Text(required=False, allow_blank=True)
    version = Text(required=False, allow_blank=True)
    system = Text(required=False, allow_blank=True)
    system_version = Text(required=False, allow_blank=True)
    model = Text(required=False, allow_blank=True)
    label = Text(required=False, allow_blank=True)
    device = Text(required=False, allow_blank=True, help_text="As the last sign-in has said it.")
    takes_new_keys = Flag(required=False)


class SignInSerializer(serializers.Serializer):
    username = Username(min_length=1)
    password = Text(min_length=1, write_only=True)
    app = AppSerializer(required=False)


class HandOverSerializer(serializers.Serializer):
    next = Text(required=False, allow_blank=True, help_text="The path that the web view shows.")


class ChoiceSerializer(serializers.Serializer):
    """Which sessions are to end: those in a list, or all but the one that waits."""

    sessions = serializers.ListField(child=Handle(), required=False, max_length=MOST)
    all = Flag(required=False)


# What may be wrong.


class ErrorSerializer(serializers.Serializer):
    pointer = serializers.CharField(help_text="Which value, as a JSON pointer: #/label")
    code = serializers.CharField()
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer):
    """Problem details (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="For people, in their language.")
    code = serializers.CharField(help_text="For programs: see the docs.")
    reason = serializers.CharField(required=False, help_text="Of a session that ended or is locked")
    url = serializers.CharField(required=False, help_text="Where to prove who one is, say.")
    max_age = serializers.IntegerField(required=False, help_text="Seconds since a proof.")
    needed = serializers.IntegerField(required=False, help_text="How many sessions to choose.")
    errors = ErrorSerializer(many=True, required=False)

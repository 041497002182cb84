from enum import StrEnum

from django.dispatch import Signal


class Notice(StrEnum):
    """What a user can be told of by mail. SESSIONKIT_NOTICES names some of these."""

    NEW_DEVICE = "new_device"
    OTHERS_ENDED = "others_ended"
    ENDED_BY_STAFF = "ended_by_staff"
    OLD_KEY = "old_key"


# Sent when sessions have ended, for any reason: once per batch, after the rows were marked and the
# sessions were removed from the store. Receivers can close web sockets and revoke push
# subscriptions.
#
#   sender   UserSession
#   handles  list[uuid.UUID], the UserSession ids
#   reason   str, one of EndReason
#   by       the user who ended the sessions, as given to revoke(), or None
#   note     str, what staff have said about the reason, or ""
sessions_ended = Signal()

# The same, just before, where somebody has ended the sessions: for the mails of this package, which
# are about nothing else. So sessions_ended has no receivers but those of the site, and where it has
# none, a purge need not find out which sessions it has closed.
sessions_revoked = Signal()

# Sent when somebody has signed in, once the row of the session is committed and the session is
# stored: the row says more. Not sent where a session has only moved here, nor where staff act as
# the user.
#
#   sender   UserSession
#   handle   uuid.UUID
#   novelty  str, one of Novelty, or "": what was new
session_started = Signal()

# Sent when a session has got a new key by itself, once the row is committed: its key was older than
# Policy.renew_after, its user got other privileges, or the site another SECRET_KEY. Not sent where
# code asks for a new key: at a sign-in, by cycle_key() or by reauthenticate().
#
#   sender   UserSession
#   handle   uuid.UUID, which stays the same
session_renewed = Signal()

# Sent when somebody used a session's old key after Policy.renew_grace. Either somebody else has a
# copy of the user's cookie, or this request comes from the copy.
#
#   sender   UserSession
#   handle   uuid.UUID
#   client   Client of the request
session_key_reused = Signal()

# Sent when a session is used with another browser, system or network than before, if Policy.bind
# names what has changed.
#
#   sender   UserSession
#   handle   uuid.UUID
#   changed  list[str], out of "browser", "system", "network" and "address family". The last is
#            the first address of IPv6 in a session that had one of IPv4, or the other way round.
#   client   Client of the request
session_moved = Signal()

# Sent when a sign-in was refused, because the user has as many sessions as Policy.limit allows.
#
#   sender   UserSession
#   user     the user
#   limit    int
sign_in_refused = Signal()

# Sent when a user is to be told of something that SESSIONKIT_NOTICES names, before the mail is
# made. A receiver that returns True has told the user, and there is no mail. The receivers run
# where the mail is sent: in a worker, or after the answer.
#
#   sender   UserSession
#   kind     str, one of Notice
#   handle   uuid.UUID of the session that the notice is about
#   user     its user, who is to be told
notice_due = Signal()

# Sent when staff begin to end many sessions, or throw the switch, and when all is done: once each,
# after the row is committed. The row says who, which sessions and why.
#
#   sender   Ending
#   ending   Ending
ending_started = Signal()
ending_finished = Signal()

# Sent when a purge has finished, in one run or in several. Not sent for a run that was to change
# nothing, nor where a store did not answer.
#
#   sender   PurgeRun
#   figures  Mapping[str, int], what was done with how many rows: see purging.Purged
#   seconds  float, from the beginning of the first run to the end of the last
purge_finished = Signal()

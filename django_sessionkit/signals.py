from django.dispatch import Signal

# Sessions have ended, by whom or what ever: sent once per batch, when the rows are marked and the
# store is cleared. Close web sockets and revoke push subscriptions here.
#
#   sender   UserSession
#   handles  list[uuid.UUID], the UserSession ids
#   reason   str, one of EndReason
#   by       the user who did it, or None
sessions_ended = Signal()

# A session's old key was used after its grace: somebody has a copy of the cookie, or this is one.
#
#   sender   UserSession
#   handle   uuid.UUID
#   client   Client of the request, or None
session_key_reused = Signal()

# A session is used with another browser, system or network than before, and Policy.bind says that
# this matters.
#
#   sender   UserSession
#   handle   uuid.UUID
#   changed  list[str], of "browser", "system" and "network"
#   client   Client of the request
session_moved = Signal()

# A sign-in was refused, because the user has as many sessions as Policy.limit allows.
#
#   sender   UserSession
#   user     the user
#   limit    int
sign_in_refused = Signal()

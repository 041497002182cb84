from django.dispatch import Signal

# Sessions have ended, by whom or what ever: sent once per batch, when the rows are marked and the
# store is cleared. Close web sockets and revoke push subscriptions here.
#
#   sender   UserSession
#   handles  list[uuid.UUID], the UserSession ids
#   reason   str, one of EndReason
#   by       the user who did it, or None
sessions_ended = Signal()

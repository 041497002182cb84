from django.dispatch import Signal

# Sessions were ended, by whom or what ever: sent after the rows are marked and before they are
# removed from the store, once per batch. Close web sockets and revoke push subscriptions here.
#
#   sender   UserSession
#   handles  list[uuid.UUID], the UserSession ids
#   reason   str, one of EndReason
#   by       the user who did it, or None
sessions_ended = Signal()

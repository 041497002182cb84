"""
The example project as web servers load it. If a server does that before it forks its workers, a
connection to Redis is open by then.
"""

import os
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import connection

wsgi, asgi = get_wsgi_application(), get_asgi_application()


def redis_client() -> Any:
    """Return the number of a connection of this process to Redis."""
    if not settings.SESSION_ENGINE.endswith(".redis"):
        return None
    from django_sessionkit.backends.redis_clients import sync_client

    return sync_client().client_id()


at_loading = {
    "pid": os.getpid(),
    "database": connection.connection is not None,
    "redis": redis_client(),
}

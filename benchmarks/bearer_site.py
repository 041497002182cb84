"""The site of bearer_settings.py, for a server."""

from django.core.asgi import get_asgi_application

application = get_asgi_application()

"""The example shop as a site would run it, with the sessions of one contender."""

import json
import os

from benchmarks import processes
from benchmarks.contenders import CONTENDERS, KIT, Servers
from example_project import settings as shop

contender = next(c for c in CONTENDERS if c.name == os.environ["BENCHMARKS_CONTENDER"])
theirs = contender.settings_on(Servers(*json.loads(os.environ["BENCHMARKS_SERVERS"])))

globals().update({name: getattr(shop, name) for name in dir(shop) if name.isupper()})
SECRET_KEY = processes.SECRET_KEY  # the sessions were made with this key
DEBUG = False
DATABASES, CACHES = theirs["DATABASES"], theirs["CACHES"]
SESSION_ENGINE, SESSION_CACHE_ALIAS = theirs["SESSION_ENGINE"], "default"
USERSESSIONS_TRACK_ACTIVITY = theirs["USERSESSIONS_TRACK_ACTIVITY"]
INSTALLED_APPS = [
    *shop.INSTALLED_APPS,
    *[app for app in contender.app.apps if app not in shop.INSTALLED_APPS],
]
MIDDLEWARE = [
    *[contender.app.middleware if name == KIT.middleware else name for name in shop.MIDDLEWARE],
    *contender.app.after,
]

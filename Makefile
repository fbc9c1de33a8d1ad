# rawws: `make run` and `make test` do all their own set-up; `make help` lists the rest.

PORT ?= 8765
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Maven would leave what it fetches in the home folder, npm a cache in the temporary one.
MVN := mvn --quiet --batch-mode -Dmaven.repo.local=build/maven
# Where Python is told to write no bytecode, hundreds of processes would compile all of it again.
export PYTHONDONTWRITEBYTECODE :=
NPM := NODE_DISABLE_COMPILE_CACHE=1 npm ci --silent --no-audit --no-fund
# Files of tests that run at a time: one more than small machines have processors, for tests wait. tests/conftest.py
# says in which order.
WORKERS ?= 3
TESTS := .ci/tests.py -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
PYTEST := $(BIN)/python $(TESTS)
COVERED := $(BIN)/python $(TESTS:-m=-m coverage run -m)
# What is tested here has no compiled twin, and is slow: it runs compiled alone, and is measured there. The rooms that have
# one run interpreted, too, on one loop: what a loop does otherwise shows with the compiled twin, which runs on both, and
# what a twin does otherwise shows on either. `make pythons` runs each twin on each loop.
SINGLE := $(addprefix tests/,backplanes gateway cli admin test_demo.py test_testing.py test_workers.py)
INTERPRETED := RAWWS_PURE=1 TEST_LOOPS=asyncio $(COVERED)

.PHONY: help run test check pythons build lint docs bench bench-many attacks autobahn tunnel foreign specs fuzz mutate soak frames \
	torture clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

run: build ## start the demo and name the page to open (PORT=8765)
	@$(BIN)/python -m rawws demo --port $(PORT)

test: lint ## lint, then every test compiled, then interpreted what has a compiled twin, and see that it is covered
	$(PYTEST) $(SINGLE:%=--ignore %)
	@$(BIN)/coverage erase
	$(INTERPRETED) tests/protocol tests/sse tests/server/test_bodies.py
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='rawws/protocol/*,rawws_sse/*' --fail-under=100
	$(COVERED) $(SINGLE)
	$(INTERPRETED) tests/server tests/client tests/topics tests/integrations
	@$(BIN)/coverage combine --quiet --append
	$(BIN)/coverage report --include='rawws/*' --omit='rawws/protocol/*' --skip-covered --fail-under=95
	RAWWS_PURE=1 $(PYTEST) tests/attacks
	TEST_ENGINE=asyncio $(PYTEST) tests/server/test_websocket_closing.py tests/server/test_websocket_receiving.py \
		tests/server/test_server_shutdown.py

check: lint ## in a minute: lint, the import laws, and the core, rawws_sse and topics (without other servers) on few examples
	HYPOTHESIS_PROFILE=quick $(PYTEST) -q --ignore tests/topics/test_asgi.py tests/test_layers.py tests/test_imports.py tests/protocol tests/sse tests/topics

pythons: .venv/.rawws ## test each Python that pyproject.toml claims, both twins on both loops (ARGS="3.12 3.13")
	@$(BIN)/python .ci/pythons.py $(ARGS)

build: .venv/.rawws ## compile in place what has changed
	@if $(BIN)/python .ci/can_compile.py; then $(BIN)/python .ci/compile.py; fi

lint: build .venv/.tests ## ruff and mypy
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy

docs: build .venv/.docs ## write the pages that are made from data, and make a site of docs/ (build/site/README.html)
	$(BIN)/python -m tests.specification.pages
	$(BIN)/python -m tests.specification.diagram
	$(BIN)/python -m tests.specification.modules
	$(BIN)/python -m tests.specification.message
	$(BIN)/python -m sphinx -b html -W --keep-going --quiet docs build/site
	@echo "open build/site/README.html"

bench: build .venv/.bench ## measure against the peers (ARGS=--help tells how)
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-many: build .venv/.bench ## hold 100,000 connections in one process, and tell what each costs (ARGS="--connections 20000")
	$(BIN)/python -m tests.benchmarks.many $(ARGS)

autobahn: build .venv/.tests ## run the Autobahn suite and print its table (ARGS=--help tells how)
	$(BIN)/python tests/autobahn/run.py $(ARGS)

tunnel: build .venv/.tests ## run Autobahn's cases 1-7 and 10 over one connection of HTTP/2, on both twins
	$(BIN)/python tests/autobahn/run.py --http2 --cases 1-7,10 $(ARGS)
	$(BIN)/python tests/autobahn/run.py --http2 --cases 1-7,10 --pure $(ARGS)

foreign: build .venv/.tests ## run the WebSocket tests of uvicorn and of Starlette against ours
	$(BIN)/python -m tests.integrations.foreign.run

specs: build .venv/.tests ## run the integration specs of pusher-js against a gateway
	$(BIN)/python -m pytest -q tests/gateway/pusher_specs.py

attacks: build .venv/.tests .venv/.bench ## attack this server and its peers, and print what it cost (ARGS=--help tells how)
	$(BIN)/python -m tests.attacks $(ARGS)

fuzz: build .venv/.fuzz ## look for inputs that break it, for some minutes (ARGS=--help tells how)
	@if $(BIN)/python .ci/can_compile.py; then $(BIN)/python -m fuzz $(ARGS); fi
	@$(BIN)/python -m fuzz --pure $(ARGS)

mutate: .venv/.mutate ## change one folder in small ways, and list what no test notices (ARGS=--help tells how)
	@$(BIN)/python .ci/mutate.py $(ARGS)

soak: build .venv/.bench .venv/.tests ## load it for long through a bad network, and draw reports/soak.png (ARGS="--minutes 30")
	$(BIN)/python -m tests.soak $(ARGS)

frames: build .venv/.tests ## exchange a million frames of HTTP/2, and see that nothing is left behind (ARGS="--frames 5000")
	$(BIN)/python -m tests.soak.http2 $(ARGS)

torture: build .venv/.tests ## kill servers and engines under 50 clients (ARGS="kafka --kills forget --seconds 120")
	$(BIN)/python -m tests.torture $(ARGS)

clean: ## remove all that was built and installed here
	rm -rf .venv .deps build dist reports .coverage* *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -rf tests/interop/node/node_modules tests/gateway/node/node_modules tests/javascript/node_modules tests/node/node_modules tests/typing/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +
	find rawws rawws_sse -name '*.so' -delete

# Stamps. Compiling is left to `build`, where its messages can be seen.
.venv/.rawws: pyproject.toml .ci/venv
	@[ -x $(BIN)/python ] || .ci/venv
	@echo "installing rawws into .venv"
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' >$@.in
	@$(PIP) 'pip>=25.1' -r $@.in  # the first that knows dependency groups
	@RAWWS_PURE=1 PYTHONWARNINGS=ignore $(PIP) --no-build-isolation --editable '.[uvloop]'
	@touch $@

# What is needed of each, at least. apache2: `upgrade=websocket`. caddy: it replaces what clients forge. chromium: from
# 132 on its `--headless` is the whole browser. curl: `%{http_version}`. firefox-esr and haproxy: WebSockets over HTTP/2.
# initdb: gen_random_uuid. java: what Kafka 4 runs on; it needs javac to run a source file. nghttp: h2load comes with it.
# nginx: `-e`. npm: the third format of lock files; it brings the Node of the tests, so any Node that runs npm will do.
# redis-server: SPUBLISH. varnishd: `vcl 4.1`.
PACKAGES := apache2:2.4.47=apache2-bin caddy:2.5=caddy chromium:132=chromium curl:7.50=curl firefox-esr:115=firefox-esr \
	haproxy:2.4=haproxy initdb:13=postgresql java:17=default-jre-headless javac:17=default-jdk-headless mvn:3.6=maven \
	nghttp:1.40=nghttp2-client nginx:1.19.5=nginx-light npm:7=npm pgbouncer:1.12=pgbouncer promtool:2=prometheus \
	redis-server:7.0=redis-server varnishd:6.0=varnish

.venv/.tests: .venv/.rawws tests/node/package-lock.json tests/interop/node/package-lock.json tests/gateway/node/package-lock.json \
		tests/javascript/package-lock.json tests/typing/package-lock.json tests/backplanes/kafka/pom.xml
	@.ci/packages $(PACKAGES)
	@echo "installing what the tests need"
	@$(PIP) --group test --group docs
	@$(NPM) --prefix tests/node
	@$(NPM) --prefix tests/interop/node
	@$(NPM) --prefix tests/gateway/node
	@$(NPM) --prefix tests/javascript
	@$(NPM) --prefix tests/typing
	@$(MVN) --file tests/backplanes/kafka/pom.xml dependency:copy-dependencies
	@touch $@

.venv/.docs: .venv/.rawws
	@echo "installing what makes the site"
	@$(PIP) --group docs
	@touch $@

.venv/.bench: .venv/.rawws
	@echo "installing the peers into .venv"
	@$(PIP) --group bench
	@touch $@

.venv/.fuzz: .venv/.rawws
	@echo "installing what the fuzzer needs"
	@$(PIP) --group fuzz
	@touch $@

.venv/.mutate: .venv/.rawws
	@echo "installing what changes the code"
	@$(PIP) --group mutate
	@touch $@

# Every target works alone on a fresh machine: each begins with what it needs.

VENV := .venv
PY := $(VENV)/bin/python
AGENT := agent_gateway/agent/dist/sockerless-agent-linux-amd64
AGENT_SOURCES := $(wildcard agent_gateway/agent/*.go agent_gateway/agent/*/*.go agent_gateway/agent/go.mod agent_gateway/agent/build.sh)

.PHONY: setup demo test rehearsal check terraform-check bench images up format docs lock clean

setup: $(VENV)/.installed $(AGENT)

$(VENV)/.installed: requirements.lock .ci/system_packages
	.ci/system_packages
	test -x $(PY) || python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip install --quiet --python $(PY) --requirement requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(PY) --no-deps --editable .
	$(PY) -m compileall -q $(VENV)/lib control_plane agent_gateway local_cloud
	touch $@

$(AGENT): $(AGENT_SOURCES) | $(VENV)/.installed
	PATH="$(abspath $(VENV))/bin:$$PATH" agent_gateway/agent/build.sh

demo: setup
	$(PY) -m tests.e2e.demo

# Most of a test's time is waiting, so a few run at once also on a small machine; a module's tests stay together.
WORKERS ?= 3

test: setup
	.ci/system_packages test
	$(PY) -m pytest -n $(WORKERS) --dist loadscope

# Three control planes, two gateways, two tenants and the fronts before them, as processes of this machine: on each
# kind of store. `test` has it on one.
rehearsal: setup
	.ci/system_packages test
	REHEARSAL_STORES=sqlite,firestore,cosmos $(PY) -m pytest tests/hosted

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m control_plane.compatibility --check
	$(PY) -m control_plane.backends.docs --check
	$(PY) -m tests.terraform.document --check
	$(PY) -m tests.terraform.check
	cd agent_gateway/agent && PATH="$(abspath $(VENV))/bin:$$PATH" GOPROXY=off go vet ./...

# Without network: stub providers with the real ones' schemas. Left out where there is no Terraform.
terraform-check: setup
	$(PY) -m tests.terraform.document --check
	$(PY) -m tests.terraform.check

format:
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

docs: setup
	$(PY) -m control_plane.compatibility
	$(PY) -m control_plane.backends.docs
	$(PY) -m tests.terraform.document

bench: setup
	$(PY) -m tests.bench

# The images under deploy/. Needs a docker that builds, and the network: Python's image from Docker Hub, the Functions host
# from Microsoft's registry (Azure alone), packages from PyPI. `deploy/try.sh` runs what came out.
DOCKER_BUILD ?= docker build
CLOUDS ?= gcp azure

images:
	$(DOCKER_BUILD) -f deploy/gateway.Dockerfile -t sockerless/gateway .
	$(DOCKER_BUILD) -f deploy/connect.Dockerfile -t sockerless/connect .
	set -e; for cloud in $(CLOUDS); do \
		$(DOCKER_BUILD) -f deploy/control_plane.Dockerfile --build-arg CLOUD=$$cloud -t sockerless/control-plane:$$cloud .; \
		$(DOCKER_BUILD) -f deploy/functions.Dockerfile --build-arg CLOUD=$$cloud -t sockerless/functions:$$cloud .; \
	done

up: setup
	$(VENV)/bin/sockerless up

# The exact versions that setup installs; to be run after a change of pyproject.toml.
lock: setup
	$(VENV)/bin/uv pip compile --quiet --no-annotate --no-header --no-emit-index-url --python-version 3.11 --extra gcp --extra gcp-functions --extra azure --extra azure-functions --extra telemetry --extra local --group dev --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) agent_gateway/agent/dist

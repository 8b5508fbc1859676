# What a developer does with this project. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
# uv, the package manager: the one on the PATH, or else one of the project's own.
UV := $(or $(shell command -v uv 2>/dev/null),.cache/uv/bin/uv)
# SAM finds python3.13 and its pip in the environment, reports nothing to anybody, asks nobody for a newer version (it
# believes that it just did) and keeps its settings in here.
SAM_SETTINGS := .cache/sam/metadata.json
SAM := PATH="$(CURDIR)/$(BIN):$$PATH" SAM_CLI_TELEMETRY=0 __SAM_CLI_APP_DIR="$(CURDIR)/.cache/sam" AWS_DEFAULT_REGION=eu-west-2 sam

# What Python has compiled once it keeps, so that tests and commands start sooner.
unexport PYTHONDONTWRITEBYTECODE

PROJECTS := pyproject.toml uv.lock $(wildcard layers/*/pyproject.toml cli/pyproject.toml local/pyproject.toml)
SOURCES := template.yaml watching.yaml people.yaml samconfig.toml $(shell find functions layers -type f -not -name '*.pyc' -not -name '*.md' -not -path '*/.*')
INSTALLED := .venv/.installed
BUILT := .aws-sam/build/template.yaml
DYNAMODB_LOCAL := .cache/dynamodb-local
CHROMIUM := .cache/chromium
CLOCK := .cache/clock.so

# The clocks of make test-clocks: a leap day, half an hour into a summer's day in London, ten seconds before the clocks go
# back, and this day in a year. A clock that is so much ahead, rather than one that begins at a moment, is the same for
# all processes of a test.
MOMENTS ?= 2028-02-29T12:00 2027-06-30T23:30 2027-10-31T00:59:50 1year
ZONE ?= Pacific/Auckland
TESTS ?= tests

# On two cores. The tests of a file share what it sets up; tests/conftest.py says in what order they come.
ALL = $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
SERVERLESS = $(BIN)/pytest -n 2 -m "not server" tests/unit tests/usecases

# The layers' requirements are the lock's, with hashes. botocore comes with the Lambda runtime; nhs-mesh has its own layer.
EXPORT = $(UV) export --quiet --frozen --no-dev --no-emit-workspace --no-header --no-annotate
EXPORT_MESH = $(EXPORT) --package nhs-mesh
EXPORT_VACCINATIONS = $(EXPORT) --package vaccinations --prune nhs-mesh --prune botocore

# What is packaged, as pip-audit reads it: versions and hashes of the lock, nothing resolved anew.
AUDIT = $(BIN)/pip-audit --disable-pip --require-hashes --progress-spinner off $(addprefix --requirement ,$(wildcard layers/*/requirements.txt))

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf 'make %-14s %s\n' "$$name" "$$text"; done

.PHONY: setup
setup: $(INSTALLED) ## Create the environment in .venv

.PHONY: demo
demo: $(INSTALLED) $(BUILT) ## Run the main job on this machine, from an upload to its acknowledgement
	@$(BIN)/mesh demo

.PHONY: test
test: $(INSTALLED) $(BUILT) ## Run the tests, on two cores
	@if command -v java mvn > /dev/null; then \
	    $(MAKE) --no-print-directory dynamodb-local || echo "DynamoDB Local could not be fetched; the tests on it are skipped." >&2; \
	fi
	@if command -v node npm > /dev/null; then \
	    $(MAKE) --no-print-directory chromium || echo "Chromium could not be fetched; the tests in it are skipped." >&2; \
	fi
	@echo "Running the tests that need no server ..."
	@$(SERVERLESS) --cov
	@echo "Running the others ..."
	@$(ALL) -m server

.PHONY: test-fast
test-fast: $(INSTALLED) ## Run the tests that need no server, each at one of the clocks
	@$(SERVERLESS) --one-clock --hypothesis-profile fast

.PHONY: coverage
coverage: $(INSTALLED) ## Run the same, and report how much of the rules they cover; that is to be 95 %
	@$(SERVERLESS) --one-clock --hypothesis-profile fast --cov

.PHONY: test-lowest
test-lowest: $(UV) ## Run the MESH client's tests on the oldest Python and the lowest versions that it works with
	@rm -rf .cache/lowest && $(UV) venv --quiet --python 3.11 .cache/lowest
	@printf '%s\n' cryptography==42.0.0 urllib3==2.0.0 > .cache/lowest/versions.txt
	@$(UV) pip install --quiet --python .cache/lowest/bin/python --override .cache/lowest/versions.txt \
	    cryptography urllib3 boto3 hypothesis mesh-client mesh-sandbox pytest pytest-randomly pytest-timeout pytest-xdist trustme uvicorn
	@PYTHONPATH=layers/mesh_client:local .cache/lowest/bin/python -m pytest -q -n 2 --dist loadfile -p tests.conftest \
	    --confcutdir tests/faults/nhs_mesh tests/unit/nhs_mesh tests/faults/nhs_mesh tests/sandbox \
	    --ignore tests/unit/nhs_mesh/test_package.py

.PHONY: dist
dist: $(UV) ## Build the MESH client as it is published: sdist, and the wheel from it, into dist/
	@rm -rf dist && $(UV) build --quiet --out-dir dist layers/mesh_client

.PHONY: interleavings
interleavings: $(INSTALLED) ## Play 5000 interleavings, or INTERLEAVINGS, in memory, and say what happened in them
	@INTERLEAVINGS=$(or $(INTERLEAVINGS),5000) $(BIN)/pytest -n 2 --timeout 3000 tests/usecases/test_interleavings.py

# The temporary folder is one of its own: pytest removes those in the common one that look old.
.PHONY: test-clocks
test-clocks: $(INSTALLED) $(BUILT) $(CLOCK) ## Run the tests, or TESTS, as if it were awkward moments, elsewhere (Linux, with a C compiler)
	@for moment in $(MOMENTS); do \
	    echo "Running $(TESTS) as if it were $$moment UTC, on a machine in $(ZONE) ..."; \
	    LD_PRELOAD="$(CURDIR)/$(CLOCK)" CLOCK_AHEAD=$$(($$(date -ud "$$moment" +%s) - $$(date +%s))) TZ="$(ZONE)" \
	        $(ALL) --basetemp "$$(mktemp -d)/tests" $(TESTS) || exit; \
	done

.PHONY: dynamodb-local
dynamodb-local: $(DYNAMODB_LOCAL)/.fetched ## Fetch DynamoDB Local, on which the ledger is tested too (with Maven)

.PHONY: bench
bench: $(INSTALLED) $(BUILT) ## Measure what a night costs, side by side with other ways; writes bench/results.md
	@if command -v java mvn > /dev/null; then \
	    $(MAKE) --no-print-directory dynamodb-local || echo "DynamoDB Local could not be fetched; moto stands in." >&2; \
	fi
	@$(UV) sync --frozen --quiet --group bench
	@$(BIN)/python -m bench

.PHONY: bench-clients
bench-clients: $(INSTALLED) ## Measure the MESH client side by side with NHS England's; writes bench/clients.md
	@$(BIN)/python -m bench.clients

.PHONY: mutants
mutants: $(INSTALLED) ## Change the rules in thousands of ways, and see whether a test notices (docs/mutants.md); takes its time
	@$(UV) pip install --quiet --no-deps --target .cache/mutmut --requirement tests/mutants.txt
	@PYTHONPATH=$(CURDIR)/.cache/mutmut nice -n 10 $(BIN)/python -m tests.mutants

.PHONY: schemas
schemas: $(INSTALLED) ## Make the JSON schemas in docs/schemas, the tables of names in docs/upload-format.md, docs/alarms.md, docs/commands.md, docs/sample.csv, the client's API page
	@$(BIN)/python -m tests.schemas
	@$(BIN)/python -m tests.api
	@$(BIN)/python -m tests.names
	@$(BIN)/python -m tests.alarms
	@$(BIN)/python -m tests.commands
	@$(BIN)/mesh sample --rows 12 --bad 2 --day 2026-09-14 > docs/sample.csv

.PHONY: transcripts
transcripts: $(INSTALLED) $(BUILT) ## Run the demo and the commands of docs/invoke.md, and write down what they print: docs/demo.md, docs/invoke.md
	@TRANSCRIPT=write $(BIN)/pytest -q tests/e2e/test_story.py tests/e2e/test_invoke.py

.PHONY: chromium
chromium: $(CHROMIUM)/.fetched ## Fetch Chromium and axe-core, with which that page is tested (with npm)

.PHONY: screenshot
screenshot: $(INSTALLED) $(BUILT) $(CHROMIUM)/.fetched ## Take a new picture of the page on last night, for docs/
	@SCREENSHOT=docs/status.png REQUIRE_CHROMIUM=1 $(BIN)/pytest -q -p no:randomly tests/usecases/test_page.py

.PHONY: check
check: $(INSTALLED) $(SAM_SETTINGS) ## Check formatting, lint, types, imports, the layers' requirements and the templates
	@echo "Checking the formatting (ruff format) ..."
	@$(BIN)/ruff format --check --quiet --diff
	@echo "Linting (ruff check) ..."
	@$(BIN)/ruff check --quiet
	@echo "Checking the types (mypy) ..."
	@$(BIN)/mypy
	@for handler in functions/*/handler.py; do $(BIN)/mypy --no-error-summary "$$handler"; done
	@echo "Checking what imports what (import-linter) ..."
	@$(BIN)/lint-imports --no-logo --cache-dir .cache/import-linter
	@echo "Checking that the layers' requirements are what uv.lock says ..."
	@diff <($(EXPORT_MESH)) layers/mesh_client/requirements.txt && diff <($(EXPORT_VACCINATIONS)) layers/vaccinations/requirements.txt \
	    || { echo "They are not. Put them in step with: make requirements" >&2; exit 1; }
	@echo "Auditing what is packaged for known vulnerabilities (pip-audit) ..."
	@$(AUDIT) > .cache/audit.log 2>&1 || { cat .cache/audit.log >&2; exit 1; }
	@if grep -q "could not be audited" .cache/audit.log; then \
	    echo "The registry does not know all of what is packaged, which is therefore not audited; make audit fails at that." >&2; \
	fi
	@echo "Checking the templates (sam validate --lint) ..."
	@for template in template.yaml watching.yaml people.yaml uploader.yaml; do $(SAM) validate --lint --template "$$template"; done

.PHONY: audit
audit: $(INSTALLED) ## Audit what is packaged for known vulnerabilities, and fail where the registry could not answer
	@$(AUDIT) --strict

.PHONY: findings
findings: $(INSTALLED) $(BUILT) ## Compare what checkov and zizmor find in templates and workflows with docs/findings.md
	@UV=$(UV) $(BIN)/python -m tests.findings

.PHONY: sbom
sbom: $(INSTALLED) ## Write what is packaged into the layers as bills of materials (CycloneDX), into dist/
	@mkdir -p dist
	@$(EXPORT_MESH) --preview-features sbom-export --format cyclonedx1.5 > dist/nhs-mesh.cdx.json
	@$(EXPORT_VACCINATIONS) --preview-features sbom-export --format cyclonedx1.5 > dist/vaccinations.cdx.json

.PHONY: release
release: $(INSTALLED) $(BUILT) ## Put what a release consists of into dist/: the build, its bills of materials, the notes
	@rm -rf dist
	@$(MAKE) --no-print-directory sbom
	@version=$$(sed -n 's/^__version__ = "\(.*\)"$$/\1/p' layers/mesh_client/nhs_mesh/__init__.py); \
	    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$$(git log -1 --format=%ct)" --exclude=__pycache__ \
	        -czf "dist/vaccinations-to-dps-$$version.tar.gz" .aws-sam/build samconfig.toml uploader.yaml docs CHANGELOG.md LICENSE; \
	    awk -v heading="## $$version" '/^## /{on = index($$0, heading) == 1; next} on' CHANGELOG.md > dist/NOTES.md

.PHONY: build
build: $(INSTALLED) $(BUILT) ## Build functions and layers as they are deployed, into .aws-sam/build

.PHONY: lock
lock: $(UV) ## Pick the newest versions of all dependencies: uv.lock and the layers' requirements
	@echo "Resolving the dependencies anew (uv lock --upgrade) ..."
	@$(UV) lock --upgrade
	@$(MAKE) --no-print-directory requirements

.PHONY: requirements
requirements: $(UV) ## Export the layers' requirements from uv.lock
	@echo "Exporting the layers' requirements from uv.lock ..."
	@$(EXPORT_MESH) > layers/mesh_client/requirements.txt
	@$(EXPORT_VACCINATIONS) > layers/vaccinations/requirements.txt

.PHONY: clean
clean: ## Remove everything that was made here: environment, build, caches
	@echo "Removing the environment, the build and the caches ..."
	@rm -rf .venv .aws-sam .cache .local .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): $(PROJECTS) | $(UV)
	@echo "Installing the environment into .venv (uv sync) ..."
	@$(UV) sync --frozen --quiet --compile-bytecode
	@touch $@

# The time of the template that SAM writes at the end is put back to the beginning, so that a source which was changed
# meanwhile counts as newer.
$(BUILT): $(SOURCES) | $(INSTALLED) $(SAM_SETTINGS)
	@echo "Building functions and layers (sam build) ..."
	@touch .cache/build-began
	@$(SAM) build > .cache/build.log 2>&1 || { cat .cache/build.log >&2; exit 1; }
	@touch -r .cache/build-began $@

$(DYNAMODB_LOCAL)/.fetched: tests/dynamodb-local.xml
	@echo "Fetching DynamoDB Local into $(@D) (mvn dependency:copy-dependencies) ..."
	@rm -rf $(@D)
	@mvn --quiet --batch-mode --file $< dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(@D)
	@touch $@

$(CHROMIUM)/.fetched: tests/chromium/package.json tests/chromium/package-lock.json tests/chromium/page.mjs
	@echo "Fetching Chromium into $(@D) (npm ci) ..."
	@rm -rf $(@D) && mkdir -p $(@D) && cp $^ $(@D)
	@npm ci --prefix $(@D) --no-audit --no-fund --ignore-scripts --silent
	@touch $@

$(CLOCK): tests/clock.c
	@mkdir -p $(@D)
	@$(CC) -O2 -Wall -Werror -fPIC -shared -o $@ $<

$(SAM_SETTINGS):
	@mkdir -p $(@D) && echo '{"telemetryEnabled": false, "lastVersionCheck": 4102444800.0}' > $@

.cache/uv/bin/uv:
	@echo "Installing uv, the package manager, into .cache/uv ..."
	@for python in python3.13 python3; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then break; fi; \
	    python=; \
	done; \
	if [[ -z $$python ]]; then echo "Install uv or Python 3.13: neither was found." >&2; exit 1; fi; \
	$$python -m venv .cache/uv
	@.cache/uv/bin/python -m pip install --quiet --disable-pip-version-check uv

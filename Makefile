# `make` lists the targets. Every target installs what it needs first, into .venv.
#
# torch: a CPU build is a tenth of the CUDA build that PyPI serves to Linux, and this project needs no more. It is taken
#   - from the folder that pip's find-links name (PIP_FIND_LINKS, or pip's own configuration), when there is one;
#   - else from the index in PIP_EXTRA_INDEX_URL (PyTorch publishes one of CPU wheels), when it is set;
#   - else, with uv, from the index that uv knows for TORCH_BACKEND (cpu unless you set it; `auto` finds a GPU);
#   - else, with pip alone, from PyPI: set PIP_EXTRA_INDEX_URL first to spare some gigabytes.
# Both uv and pip see the same find-links and extra index.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup setup-services demo demo-horoscope test test-fast test-services check format bench bench-data bench-real bench-controls bench-bias bench-client bench-drift bench-engines bench-forecast bench-horoscope bench-intervals bench-kills bench-leaks bench-mitigation bench-targeted bench-acceptability bench-synthesis docs lock-stages clean

DEMO ?= demo
HOROSCOPE ?= demo-horoscope
DATA ?= ../shared/data
TEST_ARGS ?=
TORCH_BACKEND ?= cpu
VENV := .venv
# Absolute, since some recipes change directory; quoted where it is used.
PY := $(CURDIR)/$(VENV)/bin/python
UNDERSTUDY := "$(PY)" -m understudy

# No model is looked up on the network; bytecode is kept, or every command pays seconds for its imports.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME VIRTUAL_ENV

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## make .venv with everything (needs Python 3.11, 3.12 or 3.13)

# The stamp is written last, so a broken install is tried again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@set -euo pipefail; \
	for candidate in $${PYTHON:-} python3.11 python3.12 python3.13 python3 python; do \
	  if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then \
	    python=$$candidate; break; fi; done; \
	if [ -z "$${python:-}" ]; then \
	  echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; fi; \
	links=$${PIP_FIND_LINKS:-$$("$$python" -m pip config get global.find-links 2>/dev/null || \
	  "$$python" -m pip config get install.find-links 2>/dev/null || true)}; \
	extra=$${PIP_EXTRA_INDEX_URL:-}; \
	uv=; if [ -z "$${NO_UV:-}" ] && uv --version >/dev/null 2>&1; then uv=yes; fi; \
	if ! "$(PY)" -c '' 2>/dev/null; then \
	  echo "making $(VENV) with $$("$$python" --version)"; \
	  if [ "$$uv" ]; then uv venv --quiet --clear --python "$$("$$python" -c 'import sys; print(sys.executable)')" $(VENV); \
	  else "$$python" -m venv --clear $(VENV); fi; fi; \
	if [ "$$uv" ]; then \
	  echo "installing with uv (about a minute when the packages are cached)"; \
	  export UV_COMPILE_BYTECODE=1 UV_COMPILE_BYTECODE_TIMEOUT=$${UV_COMPILE_BYTECODE_TIMEOUT:-600}; \
	  if [ "$$links" ]; then export UV_FIND_LINKS=$${UV_FIND_LINKS:-$$(echo $$links | tr ' ' ',')}; fi; \
	  if [ "$$extra" ]; then export UV_INDEX=$${UV_INDEX:-$$extra} UV_INDEX_STRATEGY=unsafe-best-match; fi; \
	  if [ -z "$${UV_FIND_LINKS:-}$$extra" ]; then export UV_TORCH_BACKEND=$${UV_TORCH_BACKEND:-$(TORCH_BACKEND)}; fi; \
	  uv pip install --quiet --python "$(PY)" --editable '.[local,openvino,dev]' --constraint constraints.txt; \
	else \
	  echo "installing with pip (some minutes)"; \
	  if [ -z "$$links$$extra" ] && [ "$$(uname -s)" = Linux ]; then \
	    echo "note: PyPI's torch for Linux brings CUDA; set PIP_EXTRA_INDEX_URL to an index of CPU wheels to avoid it"; fi; \
	  "$(PY)" -m pip install -qq --editable '.[local,openvino,dev]' --constraint constraints.txt; \
	  "$(PY)" -m compileall -qq $(VENV)/lib || true; \
	fi; \
	touch $@

setup-services: $(VENV)/.installed-services  ## more packages into .venv, for test-services

$(VENV)/.installed-services: $(VENV)/.installed
	@set -euo pipefail; \
	links=$${PIP_FIND_LINKS:-$$("$(PY)" -m pip config get global.find-links 2>/dev/null || true)}; \
	echo "installing what test-services needs"; \
	if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && ! command -v initdb >/dev/null; then \
	  as_root=; if [ "$$(id -u)" != 0 ]; then as_root="sudo -n"; fi; \
	  if ! command -v apt-get >/dev/null; then \
	    echo "error: no PostgreSQL found, and no apt-get to install it with; install postgresql" >&2; exit 2; fi; \
	  $$as_root apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -y -qq --no-install-recommends postgresql >/dev/null; fi; \
	if [ -z "$${NO_UV:-}" ] && uv --version >/dev/null 2>&1; then \
	  export UV_COMPILE_BYTECODE=1; if [ "$$links" ]; then export UV_FIND_LINKS=$${UV_FIND_LINKS:-$$(echo $$links | tr ' ' ',')}; fi; \
	  uv pip install --quiet --python "$(PY)" --editable '.[local,openvino,dev,services]' --constraint constraints.txt; \
	else "$(PY)" -m pip install -qq --editable '.[local,openvino,dev,services]' --constraint constraints.txt; fi; \
	touch $@

demo: setup  ## run the whole loop on the example in ./demo and print its result
	@set -euo pipefail; \
	if [ ! -e "$(DEMO)" ]; then \
	  rm -rf "$(DEMO).partial"; cp -R examples/course-advisor "$(DEMO).partial"; mv "$(DEMO).partial" "$(DEMO)"; fi; \
	if [ ! -d "$(DEMO)/data" ]; then "$(PY)" "$(DEMO)/generate.py"; fi
	$(UNDERSTUDY) run -C "$(DEMO)"

demo-horoscope: setup  ## collect, train and judge daily forecasts in Russian in ./demo-horoscope
	@set -euo pipefail; \
	if [ ! -e "$(HOROSCOPE)" ]; then \
	  rm -rf "$(HOROSCOPE).partial"; cp -R examples/horoscope "$(HOROSCOPE).partial"; mv "$(HOROSCOPE).partial" "$(HOROSCOPE)"; fi; \
	"$(PY)" "$(HOROSCOPE)/site.py" & site=$$!; \
	trap 'kill $$site 2>/dev/null || true' EXIT; sleep 1; \
	$(UNDERSTUDY) run -C "$(HOROSCOPE)"

test: setup  ## the whole test suite
	"$(PY)" -m pytest -m "not services" $(TEST_ARGS)

test-fast: setup  ## the tests that take seconds
	"$(PY)" -m pytest -m "not slow and not services" -n 2 $(TEST_ARGS)

test-services: setup-services  ## the tests against real servers: S3, mail, databases, a browser
	"$(PY)" -m pytest -m services $(TEST_ARGS)

check: setup  ## lint, format, types, import contract
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .
	"$(PY)" -m mypy
	"$(VENV)/bin/lint-imports" --no-cache

format: setup  ## format and mend what ruff can
	"$(PY)" -m ruff format .
	"$(PY)" -m ruff check --fix .

bench: setup  ## time the demo, first and second run; writes benchmarks/results/demo.json
	"$(PY)" -m benchmarks.run

bench-data: setup  ## clean + dedupe + split beside three peers (installed apart); writes benchmarks/results/data.json
	"$(PY)" -m benchmarks.data $(ARGS)

bench-real: setup  ## fine-tune on public data in DATA; writes benchmarks/results/real.json
	"$(PY)" -m benchmarks.real --data "$(DATA)"

bench-controls: setup  ## four runs that must fail the gate; writes benchmarks/results/controls.json
	"$(PY)" -m benchmarks.controls

bench-horoscope: setup  ## daily forecasts from nothing and a week after it; writes benchmarks/results/horoscope.json
	"$(PY)" -m benchmarks.horoscope $(ARGS)

bench-bias: setup  ## how often bias is flagged, planted and not; writes benchmarks/results/bias.json
	"$(PY)" -m benchmarks.bias --data "$(DATA)"

bench-mitigation: setup  ## plants a bias in training rows and mitigates it; writes benchmarks/results/mitigation.json
	"$(PY)" -m benchmarks.mitigation

bench-client: setup  ## requests/s of the service client beside a bare AsyncOpenAI loop, and of its cache; writes benchmarks/results/client.json
	"$(PY)" -m benchmarks.client

bench-targeted: setup  ## aimed against unaimed last rounds over five seeds, on dev; writes benchmarks/results/targeted.json
	"$(PY)" -m benchmarks.targeted

bench-forecast: setup  ## what plan foretells of three runs beside what they use; writes benchmarks/results/forecast.json
	"$(PY)" -m benchmarks.forecast

bench-engines: setup  ## tokens/s of transformers and OpenVINO, one by one and together; writes benchmarks/results/engines.json
	"$(PY)" -m benchmarks.engines

bench-drift: setup  ## false alarms and power of the drift check on public data in DATA; writes benchmarks/results/drift.json
	"$(PY)" -m benchmarks.drift --data "$(DATA)"

bench-leaks: setup  ## planted leaks missed and natural rows removed, by n-gram; writes benchmarks/results/leaks.json
	"$(PY)" -m benchmarks.leaks --data "$(DATA)"

bench-acceptability: setup  ## learn and measure the acceptability scorer on DATA; writes its weights, card and tables
	"$(PY)" -m benchmarks.acceptability --data "$(DATA)"

bench-intervals: setup  ## do the intervals hold, with errors of the judge and early stopping; writes benchmarks/results/intervals.json
	"$(PY)" -m benchmarks.intervals $(ARGS)

bench-synthesis: setup  ## replay real rows of DATA through synthesis; writes benchmarks/results/synthesis.json
	"$(PY)" -m benchmarks.synthesis --data "$(DATA)"

bench-kills: setup  ## kill -9 and Ctrl-C in every step; writes benchmarks/results/kills.json
	"$(PY)" -m benchmarks.kills

docs: setup  ## write docs/commands.md from a finished ./demo
	"$(PY)" -m benchmarks.commands --demo "$(DEMO)"

lock-stages: setup  ## renew understudy/stages.lock after a change that a revision covers
	"$(PY)" -c "import understudy.stages; from understudy.core.source import write_lock; write_lock()"

clean:  ## remove caches and build outputs; .venv, ./demo and ./work stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find understudy tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

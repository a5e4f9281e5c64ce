# One door for developers and CI. Needs python3 (3.11 or newer), git and make; the rest comes into .venv.

PYTHON ?= python3

VENV := .venv/bin/python
# One stamp per PYTHON, so that `make PYTHON=... build` makes .venv anew.
FOR := $(subst /,_,$(PYTHON))
BUILD_VENV := .venv/.build-$(FOR)
DEV_VENV := .venv/.dev-$(FOR)
FUZZ_VENV := .venv/.fuzz-$(FOR)
BENCH_VENV := .venv/.bench-$(FOR)
DOCS_VENV := .venv/.docs-$(FOR)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build wheel executable packages release demo docs lint format check test test-program test-emulated node-test conformance fuzz bench bench-resolve bench-audit budget clean distclean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

build: $(BUILD_VENV) ## build/bin/crio-credential-provider, with what it needs beside it
	@$(VENV) tools/make_build.py build

wheel: $(BUILD_VENV) ## dist/*.whl
	@$(VENV) tools/make_build.py wheel

# ARCHITECTURES=amd64 makes that one alone.
executable: $(BUILD_VENV) ## dist/crio-credential-provider-linux-{amd64,arm64}: one static file each; on Debian 12, see .ci/run
	@$(VENV) tools/make_executable.py $(ARCHITECTURES)

packages: executable ## dist/*.deb, dist/*.rpm and the container image of the executables; needs dpkg-deb and rpmbuild as well
	@$(VENV) tools/make_packages.py $(ARCHITECTURES)

# RELEASE=--allow-dirty tries it on files that are not committed.
release: $(DEV_VENV) ## dist, emptied: all that a version is released with, checked, with checksums and release notes
	@$(VENV) tools/make_release.py $(RELEASE)

demo: build ## the main job, told step by step, on an embedded cluster and registry
	@build/bin/crio-credential-provider demo

docs: $(DOCS_VENV) ## build/site: the documentation as a site; fails for a dead link or anchor
	@NO_MKDOCS_2_WARNING=1 $(VENV) -m mkdocs --quiet build

lint: $(DEV_VENV) ## ruff and mypy
	$(VENV) -m ruff check
	$(VENV) -m ruff format --check
	$(VENV) -m mypy

format: $(DEV_VENV) ## ruff format, and the fixes that ruff is sure of
	$(VENV) -m ruff check --fix
	$(VENV) -m ruff format

# Workers of pytest; those of `make test` stay few, since some tests measure time.
WORKERS := -n auto --maxprocesses 4

check: lint ## before a commit: linters, unit tests and vectors
	$(VENV) -m pytest $(WORKERS) -m "not slow" --hypothesis-profile=check

# pytest exits 5 where it ran no test: that is a failure here as well. A file's tests go to one worker, one after another.
test: build lint ## before a pull request: build, linters, and all tests with coverage
	$(VENV) -m coverage erase
	@status=0; $(VENV) -m coverage run -m pytest $(WORKERS) --dist loadfile || status=$$?; \
	$(VENV) -m coverage combine --quiet && $(VENV) -m coverage report; exit $$status

# A kubelet runs what ships, not the checkout: the same tests, on the program that PROGRAM names.
NATIVE := $(if $(filter aarch64,$(shell uname -m)),arm64,amd64)
PROGRAM ?= dist/crio-credential-provider-linux-$(NATIVE)

test-program: $(DEV_VENV) $(if $(filter dist/%,$(PROGRAM)),executable) ## the tests that run a process, on PROGRAM=FILE (the executable)
	PROGRAM=$(PROGRAM) $(VENV) -m pytest $(WORKERS) --dist loadfile -m process

EMULATED := program/test_executable.py pull/test_plugin.py pull/test_pull_modes.py commands/test_commandline.py demo

test-emulated: $(DEV_VENV) executable ## the pull path and each command on arm64, by qemu-user; takes root
	PROGRAM=dist/crio-credential-provider-linux-arm64 $(VENV) -m pytest $(WORKERS) --dist loadfile -m process $(EMULATED:%=tests/%)

# TESTS are arguments of pytest: TESTS="tests/realnode/test_pull.py -k one_pod". TABLE=FILE is where the table goes.
# CONTAINERD=FILE is used instead of Debian's.
# SOAK=SECONDS (120) of random pods and kills, of which SEED=NUMBER repeats the decisions; a long one takes SOAK=1800.
node-test: $(DEV_VENV) $(if $(NODE_BIN),$(if $(filter dist/%,$(PROGRAM)),executable)) ## on a real node: NODE_BIN=DIR has Kubernetes and CRI-O; PEER=PROVIDER puts one beside; takes root
	@NODE_BIN='$(NODE_BIN)' PROGRAM='$(PROGRAM)' PEER='$(PEER)' CONTAINERD='$(CONTAINERD)' TABLE='$(TABLE)' SOAK='$(SOAK)' SEED='$(SEED)' PYTHONPATH=tests $(VENV) -m realnode $(TESTS)

conformance: $(DEV_VENV) ## our answers against those of CRI-O's own library and of OpenShift, in tests/vectors
	@status=0; for kind in registries auth layers mirrorsets; do \
	$(VENV) tests/conformance.py $$kind tests/vectors/$$kind.jsonl || status=1; done; exit $$status

# Seconds for each target.
FUZZ_SECONDS ?= 30

fuzz: $(FUZZ_VENV) ## coverage-guided fuzzing, FUZZ_SECONDS (30) for each target; findings in build/fuzz
	@for target in registries auth_file secret request; do \
	$(VENV) fuzz/fuzz.py $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

# PEER=/path/to/another/plugin measures that one as well; BENCH takes flags (--help), --document to write docs/explanation/performance.md.
bench: build executable $(DEV_VENV) $(BENCH_VENV) ## whole runs against a local API server: time, CPU, memory; PEER=PLUGIN puts one beside
	@$(VENV) bench/pull.py $(BENCH)

# BUDGET=--write sets the figures.
budget: $(DEV_VENV) ## instructions of a launch of the executable against bench/budget.json; fails where one grew by over 3 %
	@$(VENV) bench/budget.py $(BUDGET)

bench-audit: $(DEV_VENV) ## time and memory of an audit of 150,000 pods, and of twice as many; AUDIT="--pods 15000"
	@$(VENV) bench/audit.py $(AUDIT)

bench-resolve: $(DEV_VENV) ## time from registries.conf to pull sources, for 50 and for 1,000 tables
	@$(VENV) bench/resolve.py

clean: ## remove what was built and cached
	rm -rf build dist .build-* .dist-* .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests tools -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove .venv as well
	rm -rf .venv

$(BUILD_VENV): pyproject.toml tools/make_venv.py
	@$(PYTHON) tools/make_venv.py build
	@touch $@

$(DEV_VENV): $(BUILD_VENV)
	@$(PYTHON) tools/make_venv.py dev
	@touch $@

$(FUZZ_VENV): $(DEV_VENV)
	@$(PYTHON) tools/make_venv.py fuzz
	@touch $@

$(BENCH_VENV) $(DOCS_VENV): .venv/.%-$(FOR): $(BUILD_VENV)
	@$(VENV) -c 'import subprocess, sys, tomllib; \
	group = tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["$*"]; \
	sys.exit(subprocess.call([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *group]))'
	@touch $@

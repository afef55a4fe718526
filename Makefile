# Everything starts from Python 3.11 (or newer), make and pip; each target does its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What torchdyn really imports: its distribution asks for torchvision too, which would replace or break torch.
TORCHDYN := torchsde torchcde pytorch-lightning

.PHONY: demo test test-cov slow mutants fuzz soak matrix lint bench gpu peers doors docs docs-check wheel-check clean

demo: $(VENV)/installed
	$(BIN)/cellflow demo task=hematopoiesis
	$(BIN)/cellflow demo

test: $(VENV)/installed-test
	$(BIN)/pytest -n 2 --dist worksteal

# The same, and which lines of the package they never reach. Slower.
test-cov: $(VENV)/installed-test
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt pytest-cov
	$(BIN)/pytest -n 2 --dist worksteal --cov=cellflow --cov-report=term:skip-covered

# What trains to convergence, and what documents print; what the minutes do not suffice for is listed as skipped.
SLOW_MINUTES ?= 7
slow: $(VENV)/installed-test
	$(BIN)/pytest -n 2 --dist worksteal -rs -m 'slow and not gpu' --minutes $(SLOW_MINUTES)

mutants: $(VENV)/installed-test
	$(BIN)/python -m tests.mutants

# Ten thousand inputs of Python and a thousand command lines that nobody thought of; how many ended badly.
FUZZ_SEED ?= 0
fuzz: $(VENV)/installed-test
	$(BIN)/python -m tests.fuzz --seed $(FUZZ_SEED)

# Many fits and resumes in one process: what memory, threads and open files are afterwards.
soak: $(VENV)/installed-test
	$(BIN)/python -m tests.soak

# Lowest and highest versions of what we build on, each in an environment of its own; writes the table.
matrix:
	$(PYTHON) .ci/matrix.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks.speed --commit-table
	$(BIN)/python -m benchmarks.trajectory all --commit-table

gpu: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks.gpu

# Flows in CellRank and scVelo, in an environment of their own: CellRank 2.0.7, which is what Python 3.11 gets, needs
# NumPy below 2. Draws figures/doors-*.png.
doors: .venv-doors/installed
	.venv-doors/bin/pytest -W default tests/doors

# The site, into build/docs. Tutorials run as it is built, those that have changed, unless TUTORIALS=off; nothing is fetched.
TUTORIALS ?= cache
docs: .venv-docs/installed
	.venv-docs/bin/python -m sphinx -W --keep-going -D nb_execution_mode=$(TUTORIALS) -c docs -b html . build/docs

# The built site in Chromium, which the system has to have: console, links, images, widths, search. PHOTOGRAPHS=folder.
docs-check: .venv-docs-check/installed
	.venv-docs-check/bin/python docs/_check/browser.py $(if $(PHOTOGRAPHS),--photographs $(PHOTOGRAPHS))

peers: .venv-otpfm/installed .venv-cellflow-tools/installed

wheel-check: $(VENV)/installed-test
	PYTHON=$(PYTHON) .ci/wheel-check $(BIN)/python

# The version is read from `__init__.py` when it is installed.
$(VENV)/installed: pyproject.toml constraints.txt Makefile cellflow/__init__.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed Makefile
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]' ruff mypy pandas-stubs types-PyYAML build hatchling $(TORCHDYN)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt --no-deps torchdyn
	touch $@

$(VENV)/installed-bench: $(VENV)/installed-test
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt --no-deps torchcfm
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt diffusers
	touch $@

.venv-otpfm/installed: constraints.txt Makefile
	test -x .venv-otpfm/bin/python || $(PYTHON) -m venv .venv-otpfm
	.venv-otpfm/bin/pip install -q --disable-pip-version-check -c constraints.txt otpfm
	touch $@

# Without our constraints, whose NumPy is newer.
.venv-doors/installed: pyproject.toml constraints-doors.txt Makefile
	test -x .venv-doors/bin/python || $(PYTHON) -m venv .venv-doors
	.venv-doors/bin/pip install -q --disable-pip-version-check -c constraints-doors.txt -e '.[cellrank]' scvelo pytest hypothesis
	touch $@

.venv-docs/installed: pyproject.toml constraints.txt constraints-docs.txt Makefile
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install -q --disable-pip-version-check -c constraints.txt -c constraints-docs.txt -e '.[docs]'
	touch $@

.venv-docs-check/installed: constraints-docs.txt Makefile
	test -x .venv-docs-check/bin/python || $(PYTHON) -m venv .venv-docs-check
	.venv-docs-check/bin/pip install -q --disable-pip-version-check -c constraints-docs.txt playwright
	touch $@

# Without our constraints: it pins older versions of what both build on. It imports requests without asking for it.
.venv-cellflow-tools/installed: Makefile
	test -x .venv-cellflow-tools/bin/python || $(PYTHON) -m venv .venv-cellflow-tools
	.venv-cellflow-tools/bin/pip install -q --disable-pip-version-check cellflow-tools requests
	touch $@

clean:
	rm -rf $(VENV) dist build runs

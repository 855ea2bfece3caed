# The three things to do in a clone, each with what it needs:
#
#   make demo    cleans a noisy recording and draws it before and after, in out/demo/
#   make test    runs every test (about 8 minutes on two cores)
#   make check   style, types, import directions, and the commands of the README
#
# and how a shipped model was made, or to make it again on folders of sound:
#
#   make reproduce MODEL=denoise-16k [SOUNDS="speech/ --noise noise/ --rooms rooms/"]
#
# The first of them makes a virtual environment in .venv, and later ones use it.
#
# Another Python (3.11 to 3.13):  make demo PYTHON=python3.12
# Windows:                        GNU make from Git Bash, with PYTHON=python; or without make:
#                                     python -m venv .venv
#                                     .venv\Scripts\pip install -e .[report]
#                                     .venv\Scripts\wavediff denoise examples\noisy-volunteer.ogg --plot
# macOS:                          the make of the command line tools will do

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
RUN := $(BIN)/python
PIP := $(RUN) -m pip --disable-pip-version-check install $(PIP_ARGS)
STAMP = @$(RUN) -c "import sys; [open(name, 'w').close() for name in sys.argv[1:]]"

DEMO := out/demo/clean-volunteer

.PHONY: demo test check reproduce
.DEFAULT_GOAL := demo

demo: $(VENV)/demo.stamp
	$(BIN)/wavediff denoise examples/noisy-volunteer.ogg -m denoise-16k -o $(DEMO).wav --plot --force --verbose
	@echo "A volunteer's voice in a noisy room went through the model denoise-16k."
	@echo "  before:  examples/noisy-volunteer.ogg"
	@echo "  after:   $(DEMO).wav"
	@echo "  picture: $(DEMO).png"
	@echo "Your own: $(BIN)/wavediff denoise FILE"

test: $(VENV)/test.stamp
	$(RUN) -m pytest

check: $(VENV)/test.stamp
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest tests/test_layout.py tests/test_readme.py

reproduce: $(VENV)/demo.stamp
	$(RUN) benchmarks/reproduce.py $(MODEL) $(SOUNDS)

$(VENV)/made.stamp:
	$(PYTHON) .ci/environment.py $(VENV)
	$(STAMP) $@

# Editable: what is changed in the clone is what runs.
$(VENV)/demo.stamp: $(VENV)/made.stamp pyproject.toml
	$(PIP) -e ".[report]"
	$(STAMP) $@

# PESQ has to be compiled. Where it cannot be, its tests are skipped by name.
$(VENV)/test.stamp: $(VENV)/made.stamp pyproject.toml
	$(PIP) -e ".[dev]"
	@$(PIP) pesq || echo "pesq was not built, which takes a C compiler: its tests will be skipped"
	$(STAMP) $@ $(VENV)/demo.stamp

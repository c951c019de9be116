# One-line recipes over one environment; everything they do can be done by hand (see README.md).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SHARED ?= ../shared
SETS = xquad_zh xquad_en drcd_dev xquad_zh_asked_en xquad_en_asked_zh

.PHONY: run install test fast lint check notebooks recall agreement baseline bench capacity torture audit screenshots clean

run: install
	@$(BIN)/ragbot index
	@printf '%s\n' '華為在什麼時候宣布成立醫療衛生軍團？' /sources /reset \
	  'Which hospital worked with Huawei on RuiPath?' /sources | $(BIN)/ragbot chat
	@echo 'In the terminal:  $(BIN)/ragbot chat    $(BIN)/ragbot ask "..." --corpus FILE_OR_FOLDER'
	@$(BIN)/ragbot serve

install: $(VENV)/installed
test: $(VENV)/installed-dev lint notebooks
	$(BIN)/python -m pytest

# What needs no model, no browser and no other process; some minutes.
fast: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not model and not browser and not apart"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

notebooks: $(VENV)/installed-dev
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 notebooks

# The converted encoder against its reference engine.
check: $(VENV)/installed-dev
	$(BIN)/python scripts/check_encoder.py

# What retrieval finds on the five shared question sets.
recall: $(VENV)/installed
	@for set in $(SETS); do echo; echo $$set; $(BIN)/ragbot eval --retrieval-only \
	  $(SHARED)/bench/$$set.questions.jsonl \
	  --corpus $(SHARED)/bench/$${set%_asked*}.corpus.txt || exit; done

# The judge of support against hand labels.
agreement: $(VENV)/installed-dev
	$(BIN)/python scripts/measure_agreement.py

# The figures that later work is compared with (docs/results/README.md); about 40 minutes.
baseline: runs/article_dev runs/xquad_zh runs/xquad_zh_asked_en runs/drcd_dev

runs/article_dev: | $(VENV)/installed
	$(BIN)/ragbot eval $(SHARED)/questions/article_dev.jsonl --corpus corpus --out $@

runs/%: | $(VENV)/installed
	$(BIN)/ragbot eval $(SHARED)/bench/$*.questions.jsonl \
	  --corpus $(SHARED)/bench/$(firstword $(subst _asked, ,$*)).corpus.txt --limit 60 --out $@

# Time, memory, readers at once, and what others take for the same; about 25 minutes.
bench: $(VENV)/installed-dev
	$(BIN)/python -m scripts.bench

# How long readers would wait, by how many and how many generators; a minute.
capacity: $(VENV)/installed-dev
	$(BIN)/python -m scripts.capacity

# What the world may do to it, at length (docs/robustness.md); hours.
torture: $(VENV)/installed-dev
	$(BIN)/python -m pytest -s -m torture

# Known holes of the pinned libraries; needs the network.
audit: $(VENV)/installed-dev
	$(PIP) pip-audit && $(BIN)/pip-audit --strict -r constraints.txt --no-deps --disable-pip

# The pictures in docs/images, of the real page with the real model.
screenshots: $(VENV)/installed-dev
	$(BIN)/python scripts/take_screenshots.py

clean:
	rm -rf $(VENV) index/generation-* index/manifest.json index/source.json

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'Installing (about 2 GB; some minutes the first time) ...'
	@$(PIP) -e '.[models]' && touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@$(PIP) -e '.[models,models-small,dev]' && touch $@

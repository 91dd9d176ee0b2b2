# `make` prints this help.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CATALOGUE ?= var/demo
SLOW ?= slow
DEMO := $(if $(filter var/demo,$(CATALOGUE)),1)
export AUSCULT_HOME ?= $(CURDIR)/var
.DEFAULT_GOAL := help
.PHONY: help setup scan demo-table register test test-slow chaos audit check bench bench-peers bench-gpu bench-growth bench-serving bench-size bench-training bench-tuning bench-meant bench-relatives bench-delivery bench-filter bench-localisation bench-together evaluate evaluate-r128 evaluate-clicks evaluate-mp3-glitches lock dist

help: ## print this help
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## virtual environment, pinned dependencies, Delta's jars

$(READY): requirements.lock pyproject.toml jobs/prepare.py udfs/schemas.py conf/spark-defaults.conf conf/log4j2.properties
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 12), "Python 3.11 or 3.12 is needed, found " + sys.version.split()[0] + "; say PYTHON=python3.11"'
	@java -version 2>&1 | grep -q 'version "17' || { echo "Java 17 is needed, found: $$(java -version 2>&1 | head -1)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m jobs.prepare
	$(BIN)/spark-submit jobs/scan.py --help > /dev/null 2>&1 || { echo "Delta's jars could not be fetched:"; $(BIN)/spark-submit jobs/scan.py --help; exit 1; }
	@touch $(READY)

scan: setup ## scan the demo catalogue, or CATALOGUE=/my/media
	$(if $(DEMO),$(BIN)/python jobs/demo.py build var/demo)
	@$(MAKE) -s register
	$(BIN)/spark-submit jobs/scan.py --catalogue "$(CATALOGUE)"

register: setup ## register the shipped models in MLflow
	$(BIN)/python jobs/register.py --shipped

demo-table: setup ## what the scan of the demo catalogue found, missed and invented
	@$(BIN)/spark-submit jobs/demo.py compare var/demo

test: setup ## the tests
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup ## the tests that take minutes
	$(BIN)/python -m pytest -m "$(SLOW)"

chaos: setup ## hostile files, dying machines, shared tables: each case and its outcome into CHAOS.md
	rm -f CHAOS.md
	AUSCULT_KILLS=$${AUSCULT_KILLS:-20} $(BIN)/python -m pytest tests -m chaos --table=CHAOS.md -rs

audit: setup ## known vulnerabilities of the pinned dependencies; says so where nothing could be looked up
	$(BIN)/python .ci/audit.py

check: setup ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup ## the scan beside a bare loop of the same decode and model, and beside peers that are installed
	$(BIN)/python -m tests.bench.throughput

bench-peers: setup ## installs Ray Data and Daft (400 MB) and runs `make bench` with them
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bench.lock
	$(BIN)/python -m tests.bench.throughput

bench-serving: setup ## ways to run the shipped networks on a CPU (installs ONNX Runtime and OpenVINO); after make evaluate
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bench.lock
	$(BIN)/python -m tests.bench.serving

bench-gpu: setup ## the shipped networks on a GPU, and how many workers it takes to feed one
	$(BIN)/python -m tests.bench.gpu

bench-growth: setup ## time per audio hour of short titles and long ones, of few and many
	$(BIN)/python -m tests.bench.growth

bench-size: setup ## planning, commits and a second scan of 10,000 tiny titles
	$(BIN)/python -m tests.bench.catalogue_size

bench-training: setup ## what simulating costs beside the training that waits for it
	$(BIN)/python -m tests.bench.training

bench-tuning: register ## what tuned operating points are worth, on simulated titles with intended sounds among them
	$(BIN)/python -m tests.bench.tuning

bench-meant: register ## what the default detector says of sounds that are meant and resemble defects
	$(BIN)/python -m tests.bench.meant

bench-relatives: setup ## what the default detector says of defects other than the paper's: mains hum, pink noise, coded clipping
	$(BIN)/python -m tests.bench.relatives

bench-delivery: setup ## what the default detector hears of titles at other sample rates, and turned down
	$(BIN)/python -m tests.bench.delivery

bench-filter: setup ## the temporal filter and the tuning's pass over 10 and 100 million segment rows
	$(BIN)/python -m tests.bench.temporal_filter

evaluate: setup ## the shipped models on a labelled test catalogue from recordings that training never saw
	$(BIN)/python jobs/demo.py clean var/evaluation/clean.csv
	test -d var/evaluation/titles || $(BIN)/spark-submit jobs/simulate.py --catalogue var/evaluation/clean.csv \
	  --out var/evaluation --format flac --format mp3 --format m4a --format opus --seconds 60 --seed 1
	@$(MAKE) -s register
	$(BIN)/spark-submit jobs/evaluate.py --catalogue var/evaluation \
	  --model models:/audio-artifacts@champion --model models:/audio-artifacts-cnn6@champion

evaluate-r128: setup ## the default model on the same recordings at programme loudness (EBU R 128)
	$(BIN)/python jobs/demo.py clean var/evaluation-r128/clean.csv
	test -d var/evaluation-r128/titles || $(BIN)/spark-submit jobs/simulate.py --catalogue var/evaluation-r128/clean.csv \
	  --out var/evaluation-r128 --format flac --format mp3 --format m4a --format opus --seconds 60 --seed 1 --loudness-lufs -23
	@$(MAKE) -s register
	$(BIN)/spark-submit jobs/evaluate.py --catalogue var/evaluation-r128 --model models:/audio-artifacts@champion

var/evaluation-clicks/titles var/evaluation-mp3-glitches/titles: var/evaluation-%/titles: | setup
	$(BIN)/python jobs/demo.py clean var/evaluation-$*/clean.csv
	$(BIN)/spark-submit jobs/simulate.py --catalogue var/evaluation-$*/clean.csv --out var/evaluation-$* --defects $(subst -,_,$*) \
	  --format flac --format mp3 --format m4a --format opus --seconds 60 --seed 1

evaluate-clicks: var/evaluation-clicks/titles ## the click detector by events, beside adeclick and, where installed, Essentia's
	@$(MAKE) -s register
	$(BIN)/python -m tests.bench.baselines
	$(BIN)/spark-submit jobs/evaluate.py --catalogue var/evaluation-clicks --model models:/clicks@champion \
	  --model models:/adeclick@champion $$($(BIN)/python -c 'import importlib.util as u; print("--model models:/sigclick@champion" if u.find_spec("essentia") else "")')

evaluate-mp3-glitches: var/evaluation-mp3-glitches/titles ## the detector of damaged MP3 frames by events
	@$(MAKE) -s register
	$(BIN)/spark-submit jobs/evaluate.py --catalogue var/evaluation-mp3-glitches --model models:/mp3-glitches@champion

bench-localisation: var/evaluation-clicks/titles ## detectors of clicks and MP3 glitches by their 128 outputs a segment, as in the paper
	$(BIN)/python -m tests.bench.localisation

bench-together: setup ## one scan with three models beside three scans with one each; after make scan
	$(BIN)/python -m tests.bench.together

lock: ## resolve pyproject.toml's pins into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate --upgrade -q -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra bench --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate -q -c requirements.lock -o requirements-bench.lock

dist: setup ## a wheel for the nodes of a cluster
	$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist .

# Staunch. `make` alone says what there is to make.
#
# One profile (release) and one set of features (the whole workspace) for everything, so that RocksDB, which
# takes minutes, is compiled once. With CARGO_TARGET_DIR set, what is built there already is used again.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test bench proof

CARGO_TARGET_DIR ?= target
override CARGO_TARGET_DIR := $(abspath $(CARGO_TARGET_DIR))
export CARGO_TARGET_DIR
PROGRAMS := $(CARGO_TARGET_DIR)/release
# Where `bench` and `proof` put their tables, see `help`.
RESULTS ?=
RESULTS_OF_BENCHES := $(or $(RESULTS),benches/results)

help:
	@echo "make demo    run a job on real data, kill it half-way, continue it, check the results (10 s)"
	@echo "make test    run every test beside real servers, clippy, the documentation, an ordinary build (about half an"
	@echo "             hour on two cores, once RocksDB is there; the tests alone take 11 minutes)"
	@echo "make bench   measure: keyed_count beside raw timely and naive RocksDB; recovery by size of state;"
	@echo "             what a base costs beside its state (13 minutes)"
	@echo "make proof   the long checks (about 75 minutes on two cores, once all is built): the model (6), 260,000"
	@echo "             simulated jobs (11), the whole crash matrix (11), 300 kills (15), the control (2), every decoder"
	@echo "             fuzzed for a minute (9; STAUNCH_FUZZ_SECONDS=600 for ten)"
	@echo "             RESULTS=DIR with bench and proof: write the tables into DIR"
	@echo "make setup   only install what building needs (part of all the others)"
	@echo
	@echo "The first of them also compiles RocksDB, about a quarter of an hour on two cores."

setup:
	@.ci/setup

demo: setup
	@cargo build --workspace --release --bin flight_delays --bin demo
	@$(PROGRAMS)/demo

test: setup
	@.ci/test

bench: setup
	@cargo build --workspace --release --bin keyed_count --bin recovery --bin base_memory
	@mkdir -p "$(RESULTS_OF_BENCHES)"
	@$(PROGRAMS)/keyed_count --results "$(RESULTS_OF_BENCHES)"
	@$(PROGRAMS)/recovery --result "$(RESULTS_OF_BENCHES)/$$(date -u +%F)-recovery.md"
	@$(PROGRAMS)/base_memory --result "$(RESULTS_OF_BENCHES)/$$(date -u +%F)-base_memory.md"

proof: setup
	@.ci/proof "$(RESULTS)"

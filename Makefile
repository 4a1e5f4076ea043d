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

help:
	@echo "make demo    run a job on real data, kill it half-way, continue it, check the results (10 s)"
	@echo "make test    run every test, clippy and the documentation (about 8 minutes once RocksDB is built)"
	@echo "make bench   measure: keyed_count beside raw timely and naive RocksDB"
	@echo "make proof   the long checks: 220,000 simulated jobs, the whole crash matrix, 300 kills (about 40 minutes)"
	@echo "make setup   only install what building needs (part of all the others)"
	@echo
	@echo "The first of them also compiles RocksDB, about 10 minutes on two cores."

setup:
	@.ci/setup

demo: setup
	@cargo build --workspace --release --bin flight_delays --bin demo
	@$(PROGRAMS)/demo

test: setup
	@.ci/test

bench: setup
	@cargo build --workspace --release --bin keyed_count
	@$(PROGRAMS)/keyed_count

proof: setup
	@cargo build --workspace --release --features staunch-testing/crash-points --bins
	@$(PROGRAMS)/simulate --seeds 220000
	@$(PROGRAMS)/crash_matrix
	@$(PROGRAMS)/soak --kills 300

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
	@echo "make test    run every test, clippy, the documentation, an ordinary build (10 minutes once RocksDB is there)"
	@echo "make bench   measure: keyed_count beside raw timely and naive RocksDB"
	@echo "make proof   the long checks: the model, 220,000 simulated jobs, the whole crash matrix, 300 kills, the"
	@echo "             control (about 50 minutes)"
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

# First the model, within the bounds in which it is searched to its end; last the control, which has to double records.
proof: setup
	@cargo build --workspace --release --features staunch-testing/crash-points --bins --example model_check
	$(PROGRAMS)/examples/model_check --zombies 1 --crashes 1 --unknown 1
	$(PROGRAMS)/examples/model_check --zombies 1 --timeouts 1 --crashes 1
	$(PROGRAMS)/examples/model_check --zombies 2 --crashes 1 --records 1
	$(PROGRAMS)/examples/model_check --zombies 1 --timeouts 1 --losses 1 --repeats 1 --records 1
	$(PROGRAMS)/examples/model_check --crashes 2 --timeouts 1 --losses 1 --repeats 1 --unknown 1
	@$(PROGRAMS)/simulate --seeds 220000
	@$(PROGRAMS)/crash_matrix
	@$(PROGRAMS)/soak --kills 300
	@$(PROGRAMS)/soak --kills 25 --records 0 --seed 1 --at-least-once

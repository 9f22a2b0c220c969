# The commands of this project. Each does all of its own set-up (scripts/setup) and asks nothing.
SHELL := /bin/bash
SECONDS_EACH ?= 300

.PHONY: help demo test fast check soak bench manual website pictures

help:
	@echo 'make demo    a laptop signs in with a phone: three processes on this machine'
	@echo 'make test    everything: check, all tests, radio VMs, a little fuzzing'
	@echo 'make fast    the tests that take under a second each'
	@echo 'make check   lint, format, types, import contracts'
	@echo 'make soak    the long proofs in full (SECONDS_EACH=$(SECONDS_EACH) for each fuzz target); prints figures'
	@echo 'make bench   measurements'
	@echo 'make website  an example website with passkeys, and a look behind the scenes'
	@echo 'make pictures make the pictures of the documents anew'
	@echo 'make manual  write manual pages and completions anew'

demo:
	@scripts/setup run
	@.venv/bin/hybrid demo

check:
	@scripts/setup dev
	@.venv/bin/python -m scripts.run_tests check

fast:
	@scripts/setup dev
	@.venv/bin/python -m scripts.run_tests fast

test:
	@scripts/setup test
	@.venv/bin/python -m scripts.run_tests test

soak:
	@scripts/setup soak
	@.venv/bin/python -m scripts.run_tests soak --seconds $(SECONDS_EACH)

bench:
	@scripts/setup bench
	@.venv/bin/python -m benchmarks

manual:
	@scripts/setup dev
	@.venv/bin/python -m scripts.make_manual

website:
	@scripts/setup dev
	@.venv/bin/python -m examples.relying_party

pictures:
	@scripts/setup test
	@.venv/bin/python -m scripts.make_pictures

# make quickstart   install what is missing, build, convert the shipped teacher and report
# make test         install what is missing, build, run every test
# make              build
.DEFAULT_GOAL := build
.PHONY: setup setup-test build quickstart test bench lint format install clean

PREFIX ?= $(HOME)/.local
JOBS ?= $(shell nproc)

setup:
	@tools/setup

setup-test:
	@tools/setup test

build: setup
	@cmake --preset release $(CMAKE_FLAGS) >build-configure.log 2>&1 || { cat build-configure.log; exit 1; }; rm -f build-configure.log
	@cmake --build --preset release --parallel $(JOBS)

quickstart: build
	@tools/quickstart

test: setup-test
	@$(MAKE) --no-print-directory build CMAKE_FLAGS="-DMOLT_TESTS=ON -DMOLT_BENCHMARKS=ON -DMOLT_WERROR=ON"
	@.venv/bin/python tools/run_tests.py build/release

lint: setup-test
	@python3 tools/check_floors.py
	@.venv/bin/clang-format --dry-run --Werror $$(git ls-files '*.cc' '*.h' '*.cu' '*.cuh')

format: setup-test
	@.venv/bin/clang-format -i $$(git ls-files '*.cc' '*.h' '*.cu' '*.cuh')

install: build
	@cmake --install build/release --prefix $(PREFIX)

clean:
	@rm -rf build

# make quickstart   install what is missing, build, convert the shipped teacher and report
# make test         install what is missing, build, run every test
# make              build
# make cuda         build for machines with an NVIDIA GPU, on this one without: a folder of programs in build/cuda/dist
.DEFAULT_GOAL := build
.PHONY: setup setup-test build cuda quickstart test bench lint format install clean

PREFIX ?= $(HOME)/.local
JOBS ?= $(shell nproc)

setup:
	@tools/setup

setup-test:
	@tools/setup test

build: setup
	@cmake --preset release $(CMAKE_FLAGS) >build-configure.log 2>&1 || { cat build-configure.log; exit 1; }; rm -f build-configure.log
	@cmake --build --preset release --parallel $(JOBS)

cuda:
	@tools/setup cuda
	@cmake --preset cuda -DMOLT_TORCH=$(CURDIR)/build/cuda-libtorch/torch "-DCMAKE_CUDA_ARCHITECTURES=80;90a" $(CMAKE_FLAGS) >build-configure.log 2>&1 || { cat build-configure.log; exit 1; }; rm -f build-configure.log
	@cmake --build --preset cuda --parallel $(JOBS)
	@rm -rf build/cuda/dist
	@cmake --install build/cuda --component distribution --strip --prefix build/cuda/dist >build/cuda/install.log
	@echo "build/cuda/dist: copy it to the machine with the GPU and start programs with ./run"

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

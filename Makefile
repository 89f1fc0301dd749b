# A front door of a few lines; each target does all its own set-up on a fresh Debian 12, as root.
unexport PYTHONDONTWRITEBYTECODE # without bytecode each of the tests' processes would compile everything anew
.PHONY: demo test quick fuzz faults releases machine bench settings deb rpm packages lint clean

demo: ## a Slurm cluster on this machine, a small guest, and the main job with a word on each line typed
	tests/prepare
	tests/demo

test: ## unit, lua, spank, netns, and beside them tests in the box (and a second one) with real Slurm and QEMU
	tests/prepare
	build/venv/bin/python -m pytest -n 3 --no-loadscope-reorder --durations=20 tests

quick: ## unit, lua and spank but what asks other programs many times: about a minute, no service of root's, nothing left on the machine
	tests/prepare
	build/venv/bin/python -m pytest -n 4 --no-loadscope-reorder -m "not thorough" tests/spank tests/lua tests/unit

fuzz: ## a million made-up inputs for each parser that meets foreign bytes: an hour or two, for the night
	tests/prepare
	build/venv/bin/python -m tests.fuzz

faults: ## each fault of tests/faults done a hundred times to jobs on the box, and docs/faults.md written: for some nights (TIMES=1)
	tests/prepare
	build/venv/bin/python -m tests.faults --times $(or $(TIMES),100)

releases: ## a selection of the tests on Slurm 24.11 (Debian 13) and 26.05 (sid), each in an isolated machine
	tests/prepare
	tests/release trixie
	tests/release sid

machine: ## tests on a whole compute node: systemd, cgroup v2, Slurm 24.11 and KVM in a virtual machine, within a quarter of an hour
	tests/prepare
	tests/node-machine test

bench: ## the figures of SPECIFICATION.md, as ratios against named baselines
	tests/prepare
	build/venv/bin/python tests/bench/measure.py
	build/venv/bin/python tests/bench/images.py
	build/venv/bin/python tests/bench/save.py

settings: ## the lines of documents/cluster.py that the rows of templates/settings.py come to, written anew
	tests/prepare
	build/venv/bin/python -m tests.settings

deb: ## Debian packages for the release and the Slurm of this machine, in build/packages
	packaging/build deb

rpm: ## the same as RPMs, from packaging/pcocc.spec: for looking at them here, or for use where RPMs are at home
	packaging/build rpm

packages: ## the packages are built, looked at, installed, upgraded and removed, in a machine for each release of Debian
	tests/prepare
	build/venv/bin/python -m pytest -m packages tests/packaging

lint: ## what CONTRIBUTING.md asks before a commit
	tests/prepare
	build/venv/bin/ruff check . && build/venv/bin/mypy

clean: ## removes the box, the node machine, the other releases' roots and what was built
	-tests/box down
	-tests/node-machine down
	tests/release --clean
	rm -rf build

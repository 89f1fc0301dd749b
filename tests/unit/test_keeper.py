"""The keeper's looks at a process: signals that wait for it, and its threads' CPUs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pcocc_runtime import keeper

SLEEPER = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {15}); print(1, flush=True); input()"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[str]]:
    """A process that has SIGTERM blocked."""
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline()
        yield process
        process.kill()


def test_a_blocked_signal_is_seen_waiting(sleeper: subprocess.Popen[str]) -> None:
    assert not keeper.is_pending(sleeper.pid, signal.SIGTERM)
    sleeper.terminate()
    assert keeper.is_pending(sleeper.pid, signal.SIGTERM) and not keeper.is_pending(sleeper.pid, signal.SIGHUP)
    sleeper.kill()
    sleeper.wait()
    assert not keeper.is_pending(sleeper.pid, signal.SIGTERM)


@pytest.mark.parametrize(("vcpus", "emulator_cores", "bound"), [(1, 0, False), (2, 0, True), (1, 1, True)])
def test_cpus_are_bound_only_where_they_are_just_enough(
    sleeper: subprocess.Popen[str], vcpus: int, emulator_cores: int, bound: bool
) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    assert len(cpus) > 1, "this test needs two CPUs"
    os.sched_setaffinity(sleeper.pid, cpus[:2])
    keeper.bind(sleeper.pid, [sleeper.pid] * vcpus, emulator_cores)
    assert os.sched_getaffinity(sleeper.pid) == ({cpus[1]} if bound else set(cpus[:2]))
    keeper.bind(1 << 22, [1], 0)  # one that is gone

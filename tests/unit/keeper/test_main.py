"""What the keeper reads of a process: signals that wait for it, and its threads' CPUs; and its last word to tasks."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from pcocc_runtime.keeper.cpus import bind
from pcocc_runtime.keeper.power_off import is_pending
from pcocc_runtime.keeper.shared_ssh import SharedSsh
from pcocc_runtime.steps.reaching import Approach, AttachError, KeeperLine, StepVm

SLEEPER = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {15}); print(1, flush=True); input()"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[str]]:
    """A process that has SIGTERM blocked."""
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline()
        yield process
        process.kill()


def test_a_blocked_signal_is_seen_waiting(sleeper: subprocess.Popen[str]) -> None:
    assert not is_pending(sleeper.pid, signal.SIGTERM)
    sleeper.terminate()
    assert is_pending(sleeper.pid, signal.SIGTERM) and not is_pending(sleeper.pid, signal.SIGHUP)
    sleeper.kill()
    sleeper.wait()
    assert not is_pending(sleeper.pid, signal.SIGTERM)


@pytest.mark.parametrize(
    ("vcpus", "planned", "emulator", "left"),
    [
        (1, (0, 1), (), (0, 1)), (2, (1, 0), (), (0,)), (1, (1,), (0,), (1,)), (0, (), (0,), (0,)),
        (1, (99,), (), (0, 1)), (1, (0,), (99,), (0, 1)),
    ],
)
def test_threads_are_bound_as_planned_or_not_at_all(
    sleeper: subprocess.Popen[str], vcpus: int, planned: tuple[int, ...], emulator: tuple[int, ...], left: tuple[int, ...]
) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    assert len(cpus) > 1, "this test needs two CPUs"
    numbers = {**dict(enumerate(cpus[:2])), 99: 1 << 12}  # of which the last was taken away since
    os.sched_setaffinity(sleeper.pid, cpus[:2])
    bind(sleeper.pid, [sleeper.pid] * vcpus, [numbers[one] for one in planned], [numbers[one] for one in emulator])
    assert os.sched_getaffinity(sleeper.pid) == {numbers[one] for one in left}
    bind(1 << 22, [1], [cpus[0]], [])  # one that is gone


def test_threads_that_come_or_go_meanwhile_keep_no_vcpu_from_its_place(
    sleeper: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that read and write disks come and go: one has ended when its turn comes, another appears later."""
    one, other = sorted(os.sched_getaffinity(0))[:2]
    looks = [[str(sleeper.pid), str(1 << 22)], [str(sleeper.pid), "7"], [str(sleeper.pid), "7"]]
    moved, move = list[int](), os.sched_setaffinity
    monkeypatch.setattr(os, "listdir", lambda _path: looks.pop(0))

    def note(thread: int, cpus: Collection[int]) -> None:
        moved.append(thread)
        if thread != 7:
            move(thread, cpus)

    monkeypatch.setattr(os, "sched_setaffinity", note)
    bind(sleeper.pid, [sleeper.pid], [one], [other])
    assert os.sched_getaffinity(sleeper.pid) == {one} and moved[-1] == sleeper.pid and {7, 1 << 22} <= {*moved}


@pytest.mark.parametrize("before", [b"", b"up\n"])
def test_a_task_knows_why_its_vm_ended_when_all_of_the_job_is_gone_from_its_node(tmp_path: Path, before: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        link, reach = object.__new__(SharedSsh), object.__new__(Approach)
        link.tasks = {theirs: b"1.2.0."}
        reach.vm, reach.line = object.__new__(StepVm), KeeperLine(ours)
        reach.vm.name, reach.vm.node, reach.line.heard = "vm1", "n2", before
        reach.vm.job_directory, reach.vm.directory = str(tmp_path / "gone"), str(tmp_path / "gone/vm1")
        with pytest.raises(AttachError, match="VMs there have ended"):
            reach.raise_if_ended()
        link.tell_end("guest-shutdown")
        theirs.shutdown(socket.SHUT_RDWR)  # it goes with its VM
        for _ in range(2):
            with pytest.raises(AttachError, match="vm1 on n2 has ended: its guest powered it off"):
                reach.raise_if_ended()

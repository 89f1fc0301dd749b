"""Signals, and how steps end: what reaches the command in a guest, and that nothing of a step stays there."""

import signal
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from tests.boot.box import Box, Process
from tests.boot.cluster import Cluster, make_cluster
from tests.waiting import limit, wait_for


def guest_processes(cluster: Cluster, word: str, vm: str = "vm0") -> str:
    """Return the guest's processes with this word in their command line, except those that look for them."""
    return cluster.srun([f"--pcocc-vm={vm}", "--overlap", "pgrep", "-f", "-a", f"[{word[0]}]{word[1:]}"]).stdout


def start_marked(
    cluster: Cluster, script: str, vm: str = "vm0", options: tuple[str, ...] = ()
) -> tuple[subprocess.Popen[str], str]:
    """Start a script in a VM that says `ready` when it has begun; return its srun and a word that marks its processes."""
    word = f"mark{uuid.uuid4().hex[:12]}"
    script = f"sleep 1000 {word} 2>/dev/null & {script}".replace(
        f"sleep 1000 {word}", f"sh -c 'while :; do sleep 5; done' {word}"
    )
    started = cluster.start([f"--pcocc-vm={vm}", *options, "sh", "-c", script, word])
    assert started.stdout is not None
    line = started.stdout.readline()
    assert line == "ready\n", line + cluster.box.finish(started).stderr
    return started, word


def send(cluster: Cluster, name: str) -> None:
    """Signal the step.

    Slurm 22.05 delivers the signal, but says `Invalid job id` when the step is not on all nodes of its job.
    """
    cluster.box.run(["scancel", "-s", name, cluster.other_step()])


@pytest.fixture(scope="module", autouse=True)
def limited(cluster: Cluster) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A step with the smallest time limit: Slurm looks at those of steps by the minute, while the other tests run."""
    script = "trap 'echo term; exit 4' TERM; echo ready; while :; do sleep 0.2; done"
    started = start_marked(cluster, script, "vm1", ("--overlap", "--mem=0", "--time=0:01"))
    yield started
    if started[0] in cluster.box.started:  # the test that waits for it was not chosen
        started[0].kill()
        cluster.box.finish(started[0])


def test_a_signal_of_scancel_reaches_the_command(cluster: Cluster) -> None:
    script = "trap 'echo usr1; exit 6' USR1; echo ready; while :; do sleep 0.2; done"
    started, word = start_marked(cluster, script)
    send(cluster, "USR1")
    done = cluster.box.finish(started)
    assert done.stdout == "usr1\n" and done.returncode == 6
    assert guest_processes(cluster, word) == ""


def test_a_signal_may_be_survived(cluster: Cluster) -> None:
    script = "trap 'echo usr2' USR2; echo ready; read line; echo $line; exit 0"
    started, _word = start_marked(cluster, script)
    send(cluster, "USR2")
    assert started.stdout is not None and started.stdout.readline() == "usr2\n"
    done = finish_with(cluster.box, started, "on\n")
    assert done.returncode == 0


def finish_with(box: Box, process: subprocess.Popen[str], text: str) -> subprocess.CompletedProcess[str]:
    """Give a process its input and wait for it."""
    out, err = process.communicate(text, timeout=limit(60))
    box.started.remove(process)
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    box.note("finished", done, 0)
    return done


def test_a_signal_does_not_touch_other_steps_or_vms(cluster: Cluster) -> None:
    other, _word = start_marked(cluster, "echo ready; cat", "vm1", ("--overlap",))
    first = set(cluster.steps())
    started, _word = start_marked(cluster, "echo ready; cat", "vm0", ("--overlap",))
    step = next(iter(set(cluster.steps()) - first))
    cluster.box.run(["scancel", "-s", "KILL", step])
    assert cluster.box.finish(started).returncode != 0
    assert finish_with(cluster.box, other, "still here\n").stdout == "still here\n"
    assert sorted(cluster.qemus()) == ["vm0", "vm1", "vm2", "vm3"]


def test_a_cancelled_step_leaves_no_process_in_the_guest(cluster: Cluster) -> None:
    started, word = start_marked(cluster, "echo ready; wait")
    cluster.box.run(["scancel", cluster.other_step()], status=0)
    assert cluster.box.finish(started).returncode != 0
    wait_for(lambda: guest_processes(cluster, word) == "", "the end of the processes in the guest", 20)


def test_a_cancelled_step_that_ignores_sigterm_leaves_no_process_in_the_guest(cluster: Cluster) -> None:
    started, word = start_marked(cluster, "trap '' TERM INT HUP; echo ready; while :; do sleep 1; done")
    cluster.box.run(["scancel", cluster.other_step()], status=0)
    assert cluster.box.finish(started).returncode != 0
    wait_for(lambda: guest_processes(cluster, word) == "", "the end of the processes in the guest", 30)


def test_a_killed_srun_leaves_no_process_in_the_guest(cluster: Cluster) -> None:
    before = set(cluster.steps())
    started, word = start_marked(cluster, "echo ready; cat; wait")
    started.send_signal(signal.SIGKILL)
    cluster.box.finish(started)
    wait_for(lambda: guest_processes(cluster, word) == "", "the end of the processes in the guest", 60)
    wait_for(lambda: set(cluster.steps()) <= before, "the end of the step", 60)


def test_ctrl_c_ends_the_command_and_its_children(cluster: Cluster) -> None:
    started, word = start_marked(cluster, "echo ready; wait")
    done = cluster.box.interrupt(started)
    assert done.returncode != 0
    wait_for(lambda: guest_processes(cluster, word) == "", "the end of the processes in the guest", 20)


def test_children_that_a_command_leaves_behind_end_with_the_step(cluster: Cluster) -> None:
    started, word = start_marked(
        cluster, "setsid sh -c 'while :; do sleep 5; done' $0 >/dev/null 2>&1 </dev/null & echo ready; exit 0"
    )
    assert cluster.box.finish(started).returncode == 0
    assert guest_processes(cluster, word) == ""


def start_beside_its_vm(cluster: Cluster, script: str) -> tuple[subprocess.Popen[str], str]:
    """Start a script in vm0 from vm0's own node."""
    return start_marked(cluster, script, "vm0", ("-w", "n1"))


def ssh_clients(cluster: Cluster, pattern: str) -> list[Process]:
    """Return the ssh processes of the job on vm0's node: of steps, or the one that holds the shared connection."""
    return cluster.box.processes(rf"^ssh .*/run/pcocc/{cluster.job}/vm0/.*{pattern}", "n1")


@pytest.mark.parametrize("which", ["ControlMaster=no", "ControlMaster=yes"], ids=["the step's", "the shared"])
def test_a_lost_connection_leaves_no_process_in_the_guest(cluster: Cluster, which: str) -> None:
    started, word = start_beside_its_vm(cluster, "echo ready; wait")
    (process,) = ssh_clients(cluster, which)
    cluster.box.kill(process, signal.SIGKILL)
    done = cluster.box.finish(started)
    assert done.returncode != 0
    wait_for(lambda: guest_processes(cluster, word) == "", "the end of the processes in the guest", 20)


def test_a_killed_task_leaves_no_process_in_the_guest(cluster: Cluster) -> None:
    started, word = start_beside_its_vm(cluster, "echo ready; wait")
    (process,) = cluster.box.processes(rf"libexec/pcocc/attach .*{word}", "n1")
    cluster.box.kill(process, signal.SIGKILL)
    assert cluster.box.finish(started).returncode != 0
    wait_for(lambda: guest_processes(cluster, word) == "", "the end of the processes in the guest", 20)


def test_many_steps_share_the_connection_of_a_vm(cluster: Cluster) -> None:
    every = [start_marked(cluster, "echo ready; read line; echo $line", "vm0", ("-w", "n1", "--overlap"))[0] for _ in range(4)]
    assert len(ssh_clients(cluster, "ControlMaster=yes")) == 1
    assert [finish_with(cluster.box, one, f"{number}\n").stdout for number, one in enumerate(every)] == [
        "0\n", "1\n", "2\n", "3\n",
    ]


def test_without_its_keeper_a_vm_runs_commands_and_nothing_is_left(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny", "-w", "n1") as cluster:
        box.kill(box.processes(rf'pcocc/keeper .*"job": {cluster.job}, "rank": 0,', "n1")[0], signal.SIGKILL)
        started, word = start_marked(cluster, "echo ready; wait")
        box.run(["scancel", "-s", "KILL", cluster.other_step()])
        assert box.finish(started).returncode != 0
        wait_for(lambda: guest_processes(cluster, word) == "", "the end of the processes in the guest", 20)


def test_a_signal_to_the_whole_job_leaves_the_vms_running(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny") as cluster:
        box.run(["scancel", "-s", "USR1", str(cluster.job)], status=0)
        box.run(["scancel", "-s", "HUP", str(cluster.job)], status=0)
        assert cluster.vm(["hostname"]) == "vm0"


def test_the_time_limit_of_a_step_ends_its_command(cluster: Cluster, limited: tuple[subprocess.Popen[str], str]) -> None:
    done = cluster.box.finish(limited[0], 150)
    assert done.returncode != 0 and "term" in done.stdout
    assert guest_processes(cluster, limited[1], "vm1") == ""

"""A boot step whose slurmstepd dies before its tasks are there: srun itself would wait for ten minutes without a word."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.box import STATE, Box, Process
from tests.waiting import limit, wait_closely, wait_for

SECONDS = 10  # from its end to a sentence on the user's terminal
SLOW = "/run/slow-nft"
STOP = (
    f"mkfifo {SLOW}.gate; printf '#!/bin/sh\\nexec cat {SLOW}.gate\\n' >{SLOW}; chmod +x {SLOW}; mount --bind {SLOW}"
    " /usr/sbin/nft"
)
GO_ON = f"umount /usr/sbin/nft; timeout 1 sh -c ': >{SLOW}.gate'; rm {SLOW} {SLOW}.gate"
PLUGIN = """
#include <signal.h>
#include <slurm/spank.h>
#define EXPORT __attribute__((visibility("default")))
EXPORT const char plugin_name[] = "dying", plugin_type[] = "spank";
EXPORT const unsigned int plugin_version = SLURM_VERSION_NUMBER, spank_plugin_version = 1;
EXPORT int slurm_spank_init(spank_t sp, int ac, char **av)
{
	return (void)sp, (void)ac, (void)av, spank_context() == S_CTX_REMOTE ? raise(SIGKILL) : 0;
}
"""


def start(box: Box) -> tuple[subprocess.Popen[str], int]:
    """Start an srun with a VM on each node; return it and its job."""
    before = set(box.jobs("all"))
    started = box.start("srun --pcocc-template=tiny:2 -N2 hostname")
    return started, wait_for(lambda: set(box.jobs()) - before, "the job", 90).pop()


def read_sentence(started: subprocess.Popen[str], words: str) -> str:
    """Return the first line of its complaints that matches."""
    assert started.stderr is not None
    for line in started.stderr:
        if re.search(words, line):
            return line
    raise AssertionError(f"{words!r} was not said")


def ensure_in_time(begin: float, sentence: str) -> None:
    """Check that a sentence was there in time, and print how long it took."""
    took = time.monotonic() - begin
    print(f"\n{took:.1f} s: {sentence}")
    assert took < limit(SECONDS), sentence


def ensure_recovered(box: Box, job: int) -> None:
    """Check that the next use of the node repairs it, and that no node was drained."""
    box.run("srun -n1 -w n2 --pcocc-template=tiny true", status=0)
    box.ensure_released(job, 20)
    assert not re.search("drain|down", box.node_states())


def test_a_slurmstepd_that_is_killed_while_root_sets_up_is_told(box: Box) -> None:
    with box.changed(STOP, GO_ON, "n2"):
        started, job = start(box)
        stepds: list[Process] = wait_for(lambda: box.processes(rf"^slurmstepd: \[{job}\.", "n2"), "slurmstepd", 60)
        wait_closely(lambda: box.processes(rf"^cat {SLOW}.gate", "n2"), "the set-up that waits", 60)
        for stepd in stepds:
            box.kill(stepd, signal.SIGKILL)
        begin = time.monotonic()
        ensure_in_time(begin, read_sentence(started, "slurmstepd has (ended on n2|not started yet on n2, or has ended at once)"))
        done = box.finish(started, 60)
        assert done.returncode != 0 and done.stdout == "" and "Traceback" not in done.stderr
    ensure_recovered(box, job)


def test_a_slurmstepd_that_is_killed_while_guests_boot_is_told(box: Box) -> None:
    started, job = start(box)
    wait_for(lambda: len(box.qemus(job)) == 2, "two QEMUs", 90)
    for qemu in box.qemus(job).values():
        box.kill(qemu, signal.SIGSTOP)  # otherwise a quick guest would be up before its slurmstepd is found
    begin = time.monotonic()
    for stepd in box.processes(rf"^slurmstepd: \[{job}\.", "n2"):
        box.kill(stepd, signal.SIGKILL)
    ensure_in_time(begin, read_sentence(started, r"^pcocc: (?!note: |booting ).*\bn2\b"))
    done = box.finish(started, 60)
    assert done.returncode != 0 and done.stdout == "" and "Traceback" not in done.stderr
    ensure_recovered(box, job)


def test_a_job_cancelled_while_root_sets_up_leaves_nothing(box: Box) -> None:
    with box.changed(STOP, GO_ON, "n2"):
        started, job = start(box)
        wait_closely(lambda: box.processes(rf"^cat {SLOW}.gate", "n2"), "the set-up that waits", 60)
        box.run(["scancel", str(job)], status=0)
    done = box.finish(started, 90)  # Slurm does not signal a step that has not begun: it ends once the set-up has ended
    assert done.returncode != 0 and done.stdout == "" and "Traceback" not in done.stderr
    box.ensure_released(job, 60)


@pytest.fixture
def deadly(box: Box, tmp_path: Path) -> Iterator[None]:
    """A node whose slurmstepds die before our plugin is asked anything."""
    source, made = tmp_path / "dying.c", STATE / "dying.so"
    source.write_text(PLUGIN)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", made, source], check=True)
    conf = "/etc/slurm/plugstack.conf"
    do = f"(echo required {made}; cat {conf}) >/run/plugstack.conf; mount --bind /run/plugstack.conf {conf}"
    try:
        with box.changed(do, f"umount {conf}; rm /run/plugstack.conf", "n2"):
            yield
    finally:
        made.unlink()


def test_a_slurmstepd_that_ends_at_once_is_told(box: Box, deadly: None) -> None:
    begin = time.monotonic()
    started, job = start(box)
    ensure_in_time(begin, read_sentence(started, "slurmstepd has not started yet on n2, or has ended at once"))
    done = box.interrupt(started)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    box.run(["scancel", str(job)], user="root")
    box.ensure_released(job, 30)
    assert not re.search("drain|down", box.node_states())

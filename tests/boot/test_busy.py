"""A node whose cores are all taken: what has a limit there still ends within it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.boot.box import Box
from tests.waiting import wait_closely, wait_for

HELPER = "libexec/pcocc/node setup"
HELPER_SECONDS = 30  # of spank/helper.c
SPINNING = 8  # processes for each core


@pytest.fixture
def busy() -> Iterator[None]:
    """Processes that want all of every core, each in a session of its own, as the helper is: the scheduler prefers nobody."""
    argv = [sys.executable, "-ISc", "while True: pass"]
    count = SPINNING * len(os.sched_getaffinity(0))
    children = [subprocess.Popen(argv, start_new_session=True) for _number in range(count)]
    yield
    for child in children:
        child.kill()
        child.wait()


def test_a_set_up_ends_in_time_on_a_busy_node(box: Box, busy: None, capsys: pytest.CaptureFixture[str]) -> None:
    started = box.start("srun -w n1 --pcocc-template=tiny true")
    wait_for(lambda: box.processes(HELPER, "n1"), "the helper", 60)
    begin = time.monotonic()
    wait_closely(lambda: not box.processes(HELPER, "n1"), "the end of the helper", HELPER_SECONDS)
    seconds = time.monotonic() - begin
    with capsys.disabled():
        print(f"\na set-up beside {SPINNING} spinning processes a core: {seconds:.1f} s of {HELPER_SECONDS}")
    assert seconds < HELPER_SECONDS
    wait_for(lambda: box.qemus(box.jobs()[0]) or started.poll() is not None, "its VM", 120)
    assert started.poll() is None, box.finish(started).stderr
    box.run(["scancel", str(box.jobs()[0])], user="root")
    box.finish(started)

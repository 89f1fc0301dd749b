"""The node machine, the VMs that tests share, and what a failed test shows."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machinelib.machine import find_pid
from tests.machinelib.place import Place
from tests.node.node import Job, Node, SharedVms
from tests.waiting import wait_for

_LOGS = "journalctl --boot --no-pager --lines=60; tail -n 40 /var/log/slurm/slurmd.log /var/log/slurm/slurmctld.log"
_FAILED = pytest.StashKey[bool]()
_CONSOLES = "tail -n 10 /run/pcocc/*/vm*/console.log 2>/dev/null"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that take the machine's power away last: everything that runs ends with it."""
    items.sort(key=lambda item: item.path.stem.startswith("test_power"))


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """The machine, which tests/node-machine brings up; nothing of pcocc's jobs is in it before and after."""
    place = Place(Path(os.environ.get("PCOCC_NODE_MACHINE", "build/machine")).resolve())
    assert find_pid(place), "the machine is not up: run tests/node-machine test"
    one = Node(place)
    one.wait_idle()
    yield one
    one.wait_idle()


@pytest.fixture(scope="session")
def shared(node: Node) -> Iterator[SharedVms]:
    """What keeps the VMs."""
    one = SharedVms(node, "tiny:2")
    yield one
    one.end()


@pytest.fixture
def cluster(shared: SharedVms) -> Job:
    """A job of alice's with two VMs that are up."""
    return shared.ensure()


@pytest.fixture
def unshared(shared: SharedVms) -> None:
    """The VMs that tests share have ended, until a test asks for them again."""
    shared.end()


@pytest.fixture(autouse=True)
def note_history(node: Node) -> None:
    """Forget the commands of the test before: a failed test shows only its own."""
    node.history.clear()


@pytest.fixture(autouse=True)
def no_job_stays(request: pytest.FixtureRequest, node: Node, shared: SharedVms) -> Iterator[None]:
    """The jobs of a failed test end with it: the next test would wait for their CPUs."""
    yield
    if request.node.stash.get(_FAILED, False):
        kept = shared.job.number if shared.job else None
        for job in node.out("squeue --noheader --format=%A").split():
            if int(job) != kept:
                node.run(["scancel", job])
                wait_for(lambda job=job: node.is_over(int(job)), f"the end of job {job}", 120, 1)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the commands of a failed test, and the ends of the machine's logs."""
    report = (yield).get_result()
    node = getattr(item, "funcargs", {}).get("node")
    if not report.failed or node is None:
        return
    item.stash[_FAILED] = True
    report.sections.append(("commands", "\n".join(node.history[-30:])))
    report.sections.append(("logs", node.run(_LOGS).stdout))
    report.sections.append(("consoles", node.run(_CONSOLES).stdout))

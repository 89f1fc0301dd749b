"""The box, the virtual cluster that many tests share, and what a failed test shows."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.boot.box import HOME, LIVE, NODES, ROOT, SHARED_NAME, STATE, Box
from tests.boot.cluster import Cluster, make_cluster
from tests.waiting import wait_for

LOG_LINES = 40
_BOX = Box()
_log_sizes: dict[str, int] = {}
_seen: set[int] = set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what needs a whole node before the shared VMs take a part of each."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is None)


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """The box, up and clean before and after, and of one process of tests at a time."""
    lock = _lock_box()
    for words in (["up", "--cpus", "8"], ["image", "tiny"]):  # room for the shared VMs and a test's own
        done = subprocess.run([ROOT / "tests/box", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    _clear_abandoned()
    _seen.update(_BOX.jobs("all"))
    yield _BOX
    if set(_BOX.jobs(name="")) - set(_BOX.jobs()):
        lock.close()
        return  # somebody else's job runs: what is there may belong to it
    done = subprocess.run([ROOT / "tests/box", "status", "--wait", "30"], capture_output=True, text=True, check=False)
    lock.close()
    assert done.returncode == 0, f"the box is not clean after the tests:\n{done.stdout}{done.stderr}"


def _lock_box() -> IO[str]:
    """Have a box for this process alone: the second where another process of the same checkout has the first."""
    STATE.mkdir(exist_ok=True)
    lock = (STATE / "tests.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        if lock.read() == str(ROOT):
            sys.path.append(str(ROOT / "tests"))
            from boxlib import second

            second.ensure_entered()
            lock.close()
            lock = (STATE / "tests.lock").open("a+")
        fcntl.flock(lock, fcntl.LOCK_EX)
    lock.truncate(0)
    lock.write(str(ROOT))
    lock.flush()
    return lock


def _clear_abandoned() -> None:
    """Remove what killed sessions have left: whoever holds the lock knows that no other session runs."""
    listed = _BOX.out(["squeue", "-h", "-t", LIVE, "-o", "%A %j"], user="root")
    for job in {int(number) for number in re.findall(r"(?m)^(\d+) boot(?:test|shared)\d+$", listed)}:
        for how in ([], ["--signal=KILL"]):
            _BOX.run(["scancel", *how, str(job)], user="root")
        wait_for(lambda job=job: job not in _BOX.jobs(name=""), f"the end of job {job}", 60)
        _BOX.ensure_released(job)
    for path in [*HOME.glob("*boottest-*"), *HOME.glob("boot test*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    listed = _BOX.run(["pcocc", "image", "list"]).stdout
    for name in sorted(set(re.findall(r"\bboottest-\w+", listed))):
        _BOX.run(["pcocc", "image", "delete", name], status=0)


@pytest.fixture
def home(box: Box) -> Iterator[Path]:
    """A home directory of alice's that is empty: for commands run with HOME set to it."""
    path = HOME / f".boottest-{uuid.uuid4().hex}"
    path.mkdir()
    shutil.chown(path, "alice", "alice")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def cluster(box: Box) -> Iterator[Cluster]:
    """Four VMs on two nodes, booted once for all tests that only run steps in them."""
    with make_cluster(box, "--pcocc-template=tiny:4", "-N2", name=SHARED_NAME) as found:
        yield found
    box.ensure_released(found.job)


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test ends clean: its jobs are over, nothing of them is on a node, no node is drained."""
    if "box" not in request.fixturenames:
        yield
        return
    box: Box = request.getfixturevalue("box")
    kept = set(map(id, box.started))
    yield
    for process in [one for one in box.started if id(one) not in kept]:
        process.kill()
        box.finish(process, 10)
    for job in set(box.jobs()):
        try:
            wait_for(lambda job=job: job not in box.jobs(), f"the end of job {job}", 20)
        except AssertionError:
            box.run(["scancel", "--signal=KILL", str(job)], user="root")
            box.run(["scancel", str(job)], user="root")
            raise
    for job in set(box.jobs("all")) - _seen:
        box.ensure_released(job)
        _seen.add(job)
    assert not set(box.node_states().split()) & {"drained", "draining", "down", "down*", "drained*"}, box.node_states()


@pytest.fixture(autouse=True)
def note_logs() -> None:
    """Remember where the logs were when the test began."""
    _log_sizes.update({str(path): path.stat().st_size for path in (STATE / "log").glob("*.log")})
    _BOX.history.clear()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the commands of a failed test, the daemons' new log lines, and the consoles of VMs that are there."""
    report = (yield).get_result()
    if not report.failed:
        return
    report.sections.append(("commands", "\n".join(_BOX.history[-30:])))
    for path in sorted((STATE / "log").glob("*.log")):
        with path.open(errors="replace") as stream:
            stream.seek(_log_sizes.get(str(path), 0))
            lines = stream.read().splitlines()[-LOG_LINES:]
        if lines:
            report.sections.append((path.name, "\n".join(lines)))
    for node in [one for one in NODES if (STATE / "run" / one).exists()]:
        for path in _BOX.root(node, "/var/lib/pcocc/scratch/pcocc").glob("*/vm*.console.log"):
            text = path.read_text(errors="replace").replace("\r", "").splitlines()[-10:]
            report.sections.append((f"{node}: {'/'.join(path.parts[-3:])}", "\n".join(text)))

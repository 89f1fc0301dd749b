"""The machine of tests/release, on a layer over this machine's own files in place of another release's."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.releaselib import machine
from tests.releaselib.suites import SUITES, Place
from tests.waiting import limit, wait_for

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import os, sys
from pathlib import Path
from tests.releaselib import machine
from tests.releaselib.suites import SUITES, Place
sys.exit(machine.run(SUITES["trixie"], Place(Path(sys.argv[1])), sys.argv[2:], os.environ))
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A root directory that is this machine's, whose changes end with the test."""
    for name in ("root", "work", "upper/tmp", "upper/var/tmp"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):  # the machine begins with these empty; in this root they are empty already
        os.setxattr(tmp_path / "upper" / name, "trusted.overlay.opaque", b"y")
    layers = f"lowerdir=/,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", tmp_path / "root"], check=True)
    yield Place(tmp_path)
    subprocess.run(["umount", tmp_path / "root"], check=True)


def start(place: Place, script: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CODE, str(place.path), "sh", "-c", script]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def ours(place: Place) -> list[str]:
    """Return what there is of the place's machine: cgroups, and processes that name it."""
    name = machine.machine_name(SUITES["trixie"], place)
    found = [str(path) for path in Path("/sys/fs/cgroup").rglob(name)]
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            found += [str(path)] if name in path.read_text() else []
        except OSError:
            continue
    return found


def test_a_command_has_a_machine_of_its_own(place: Place) -> None:
    script = (
        "hostname; cat /proc/1/comm; cut -d: -f3 /proc/self/cgroup | sort -u; ls /sys/class/net | grep -E '^(lo|eth0)$';"
        "stat -c %a /dev/net/tun /dev/fuse; cat /proc/sys/net/ipv4/ping_group_range; exit 7"
    )
    running = start(place, script)
    said, _nothing = running.communicate(timeout=limit(60))
    assert running.returncode == 7
    assert said.split() == ["trixie", "python3", "/", "eth0", "lo", "666", "666", "0", "2147483647"]
    assert ours(place) == []


def test_what_a_command_leaves_running_ends_with_it(place: Place) -> None:
    running = start(place, "setsid sleep 1000 >/dev/null 2>&1 & echo up")
    assert running.communicate(timeout=limit(60))[0] == "up\n" and running.returncode == 0
    assert ours(place) == []


def test_the_end_of_the_tests_by_force_is_the_machines(place: Place) -> None:
    running = start(place, "setsid sleep 1000 & echo up; sleep 1000")
    assert running.stdout and running.stdout.readline() == "up\n" and ours(place)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    running.stdout.close()
    wait_for(lambda: not [one for one in ours(place) if one.startswith("/proc")], lambda: ours(place))
    assert machine.run(SUITES["trixie"], place, ["true"], os.environ) == 0, "the next run removes what is left of it"
    assert ours(place) == []


def test_an_interrupted_command_may_say_what_it_found(place: Place) -> None:
    running = start(place, "trap 'echo so far; exit 3' INT; echo up; while :; do sleep 0.1; done")
    assert running.stdout and running.stdout.readline() == "up\n"
    running.send_signal(signal.SIGINT)
    for path in Path("/proc").glob("[0-9]*/cmdline"):  # a terminal tells all of them
        if re.search(rb"^sh\0-c\0trap 'echo so far", path.read_bytes()):
            os.kill(int(path.parent.name), signal.SIGINT)
    assert running.communicate(timeout=limit(60))[0] == "so far\n" and running.returncode == 3
    assert ours(place) == []

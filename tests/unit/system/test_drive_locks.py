"""Locks on drives: of many VMs at once, those of one job have it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pcocc_runtime.errors import NodeError
from pcocc_runtime.system import drive_locks
from tests.waiting import limit

ROOT = Path(__file__).resolve().parents[3]


RACE = """
import sys
sys.path.insert(0, sys.argv[1])
from pcocc_runtime.system import drive_locks
from pcocc_runtime.errors import NodeError
sys.stdin.readline()
try:
    drive_locks.lock_drive(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    print("mine", flush=True)
except NodeError as error:
    print(error, flush=True)
sys.stdin.readline()
"""


@pytest.mark.thorough
@pytest.mark.parametrize(("mmp", "jobs", "winners"), [("yes", 1, 1), ("yes", 8, 1), ("cluster", 1, 8), ("cluster", 8, 1)])
def test_of_many_at_once_one_job_has_a_drive(tmp_path: Path, mmp: str, jobs: int, winners: int) -> None:
    drive = tmp_path / "drive"
    drive.write_bytes(b"")
    program = [sys.executable, "-IS", "-c", RACE, str(ROOT), str(drive), mmp]
    pipe = subprocess.PIPE
    racers = [subprocess.Popen([*program, str(number % jobs)], stdin=pipe, stdout=pipe, text=True) for number in range(8)]
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.stdout.readline() for racer in racers if racer.stdout]
    for racer in racers:
        racer.communicate("end\n", timeout=limit(20))
    assert said.count("mine\n") == winners
    assert all("is in use by a VM of " in line for line in said if line != "mine\n")
    fd = drive_locks.lock_drive(str(drive), "yes", 99)
    assert fd is not None
    os.close(fd)


def test_the_last_job_id_has_a_byte_of_its_own(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    drive.write_bytes(b"")
    for job in (0, 0x03FFFFFF):
        fd = drive_locks.lock_drive(str(drive), "cluster", job)
        with pytest.raises(NodeError, match=f"of job {job}$"):
            drive_locks.lock_drive(str(drive), "yes", 5)
        assert fd is not None
        os.close(fd)

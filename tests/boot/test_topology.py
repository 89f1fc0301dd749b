"""@topology of VMs that Slurm has started: as a job's first command, by `pcocc topology`, and after CPUs were taken."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tests.boot.box import HOME, SHARED_NAME, Box, Done
from tests.boot.cluster import Cluster, make_cluster

OK = "vm0: ok: it runs as it is planned"


@pytest.fixture(scope="module")
def two(box: Box) -> Iterator[Cluster]:
    """One VM of two CPUs, on the node whose CPUs are the first ones of the machine."""
    with make_cluster(box, "--pcocc-template=tiny", "-c2", "-w", "n1", name=SHARED_NAME) as cluster:
        yield cluster


def ask(cluster: Cluster, command: str, status: int | None = None) -> Done:
    """Run a command of the user's in the job."""
    return cluster.box.run(command, env=cluster.environ, status=status)


def test_it_is_a_jobs_first_command(box: Box) -> None:
    done = box.run("srun --pcocc-template=tiny -c2 @topology --check", status=0, timeout=600)
    assert done.stdout.splitlines()[-1] == OK, done.stdout + done.stderr


def test_pcocc_topology_tells_it_to_people_and_programs(two: Cluster) -> None:
    text = ask(two, "pcocc topology vm0 --check", status=0).stdout
    assert text.splitlines()[-1] == OK
    told = json.loads(ask(two, "pcocc topology --json vm0", status=0).stdout)
    assert told["shape"]["cpus"] == len(told["vcpus"]) == 2 and told["differences"] == []
    owned = [one["host"] for one in told["vcpus"]]
    assert all(host is None or one["allowed"] == [host["number"]] for host, one in zip(owned, told["vcpus"], strict=True))


def test_a_file_of_lstopos_is_compared(two: Cluster) -> None:
    (HOME / "guest.xml").write_text('<topology><object type="PU" os_index="0"/></topology>')
    done = ask(two, f"pcocc topology --check --guest-lstopo={HOME}/guest.xml vm0")
    assert done.returncode == 1 and "vm0: FAILED: lstopo knows no CPUs 1 of the guest" in done.stdout, done.stdout + done.stderr
    (HOME / "guest.xml").unlink()
    done = ask(two, f"pcocc topology --guest-lstopo={HOME}/gone.xml vm0")
    assert done.returncode == 1 and f"there is no file {HOME}/gone.xml on n" in done.stderr, done.stderr


def test_cpus_that_were_taken_are_told_in_one_sentence(two: Cluster) -> None:
    """The kernel moves threads whose CPUs a cpuset loses to those that are left."""
    told = json.loads(ask(two, "pcocc topology --json vm0", status=0).stdout)
    first, *rest = [one["host"]["number"] for one in told["vcpus"]]
    pid = two.qemus()["vm0"].pid
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {first})
    done = ask(two, "pcocc topology --check vm0")
    said = [line for line in done.stdout.splitlines() if "FAILED" in line]
    lost = f"the task may no longer run on CPUs {rest[0]}, where vCPUs 1 belong: they may run on CPUs {first}"
    assert done.returncode == 1 and said == [f"vm0: FAILED: {lost}"], done.stdout

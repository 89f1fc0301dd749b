"""Directories of the host in VMs that run: given by one command, used as by a step on the node, and taken back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.box import HOME, SHARED_NAME, Box, ensure_sentence
from tests.boot.cluster import Cluster, make_cluster
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def data(box: Box) -> Iterator[Path]:
    path = HOME / "boottest-mounts"
    path.mkdir()
    (path / "letter").write_text("from the host\n")
    for one in (path, path / "letter"):
        shutil.chown(one, "alice", "alice")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def shared(box: Box, data: Path) -> Iterator[Cluster]:
    """Two VMs on two nodes with memory that can be shared, because they have a directory from their boot."""
    with make_cluster(
        box, "--pcocc-template=tiny:2", "-N2", f"--pcocc-mount=first={data},type=virtiofs", name=SHARED_NAME
    ) as found:
        yield found


def servers(box: Box) -> int:
    return len(box.processes(r"virtiofsd .*boottest-mounts"))


def test_a_directory_comes_and_goes_with_its_server(box: Box, shared: Cluster, data: Path) -> None:
    job, before = str(shared.job), servers(box)
    given = box.out(["pcocc", "mount", "-j", job, "vm[0-1]", f"work={data}", f"look={data},readonly"]).splitlines()
    assert sorted(given) == sorted(
        line for vm in ("vm0", "vm1") for line in (f"{vm}: /mnt/work is {data}", f"{vm}: /mnt/look is {data}, read-only")
    )
    script = "cat /mnt/look/letter; echo $(hostname) >/mnt/work/$(hostname); ! echo no >/mnt/look/x"
    done = shared.srun(["--pcocc-vm", "sh", "-c", script])
    assert done.returncode == 0 and done.stdout == "from the host\n" * 2, done
    assert (data / "vm1").read_text() == "vm1\n" and (data / "vm1").owner() == "alice" and not (data / "x").exists()
    shown = box.out(["pcocc", "mount", "-j", job, "list", "vm0"]).splitlines()
    assert shown == [
        "vm0: first is given over virtiofs, since its boot", f"vm0: work is {data}, given while it runs",
        f"vm0: look is {data}, read-only, given while it runs",
    ]  # fmt: skip
    ensure_sentence(box.run(["pcocc", "mount", "-j", job, "vm0", f"work={data}"]), "vm0 has a directory 'work' already")
    assert len(box.out(["pcocc", "umount", "-j", job, "vm[0-1]", "work", "look"]).splitlines()) == 4
    wait_for(lambda: servers(box) == before, "the end of virtiofsd", 20)
    assert shared.vm("ls /mnt", vms="vm0") == "first"


def test_a_directory_in_use_stays_until_it_is_free(box: Box, shared: Cluster, data: Path) -> None:
    job = str(shared.job)
    box.out(["pcocc", "mount", f"vm1.{job}", f"busy={data}"])
    user = shared.start(["--overlap", "--pcocc-vm=vm1", "sh", "-c", "cd /mnt/busy; echo there; cat"])
    assert user.stdout and user.stdout.readline() == "there\n"
    ensure_sentence(box.run(["pcocc", "umount", f"vm1.{job}", "busy"]), "the guest of vm1 cannot unmount busy", "busy")
    assert shared.vm("cat /mnt/busy/letter", vms="vm1") == "from the host"
    box.finish(user)
    assert box.out(["pcocc", "umount", f"vm1.{job}", "busy"]) == "vm1: busy is taken back"
    assert box.out(["pcocc", "mount", f"vm1.{job}", f"busy={data}"]) == f"vm1: /mnt/busy is {data}"
    box.out(["pcocc", "reset", f"vm1.{job}"])
    gone = ["--pcocc-vm=vm1", "sh", "-c", "! grep -q /mnt/busy /proc/mounts"]
    wait_for(lambda: shared.srun(gone).returncode == 0, "its reset", 90)
    assert box.out(["pcocc", "umount", f"vm1.{job}", "busy"]) == "vm1: busy is taken back"


def test_a_command_that_is_ended_leaves_nothing_or_what_is_listed(box: Box, shared: Cluster, data: Path) -> None:
    job, before = str(shared.job), servers(box)
    command = box.start(["pcocc", "mount", f"vm0.{job}", f"cut={data}"])
    wait_for(lambda: servers(box) > before, "virtiofsd", 30)
    command.terminate()
    box.finish(command)
    if "cut is" in box.out(["pcocc", "mount", "list", f"vm0.{job}"]):
        box.out(["pcocc", "umount", f"vm0.{job}", "cut"])
    wait_for(lambda: servers(box) == before, "the end of virtiofsd", 20)


def test_what_cannot_be_given_is_told(box: Box, shared: Cluster, cluster: Cluster, data: Path) -> None:
    job = str(shared.job)
    for word, message in (
        (f"work={data}/none", f"directory {data}/none cannot be read"), (f"work={data}/letter", "is not a directory"),
        ("work=/root", "directory /root cannot be read: Permission denied"),
        (f"first={data}", "vm0 has a directory 'first' already"),
        (f"{'x' * 32}={data}", "a tag of at most 31"), (f"w={data},type=9p", "over virtiofs only"),
    ):  # fmt: skip
        ensure_sentence(box.run(["pcocc", "mount", f"vm0.{job}", word]), message)
    ensure_sentence(box.run(["pcocc", "umount", f"vm0.{job}", "first"]), "was not given a directory 'first' while it runs")
    done = box.run(["pcocc", "mount", f"vm0.{cluster.job}", f"work={data}"])
    ensure_sentence(done, "the memory of vm0 is not shared")
    assert f"--pcocc-mount=work={data},type=virtiofs" in done.stderr

"""A cluster is stored as it is at one moment, and another job goes on from there, on other nodes."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

from tests.boot.box import Box
from tests.boot.cluster import Cluster, make_cluster
from tests.boot.keys import log_in, read_keys
from tests.qemu.saving import read_disk
from tests.waiting import wait_for

# a connection between the two VMs that counts while it lives; vm1 keeps the last number in a file in memory
# (a busybox whose input ends hangs up)
_ALONE = "env -i PATH=$PATH setsid sh -c '%s' </dev/null >/dev/null 2>&1 &"  # which does not end with a step
_LISTEN = _ALONE % "tail -f /dev/null | nc -l -p 7777 | while read n; do echo $n >/tmp/count; done" + " sleep 1"
_COUNT = _ALONE % "n=0; while echo $n; do n=$((n+1)); sleep 0.1; done | nc vm1 7777" + " echo kept >/tmp/mark"
# writes a number to the disk, and only then says that it is there
_NUMBERS = "/numbers"
_NUMBER = _ALONE % f"n=0; while n=$((n+1)); do echo $n >>{_NUMBERS}; sync; echo $n >/tmp/on-disk; done"
_WRITE = "echo on-disk | sudo tee /written >/dev/null; sync"
_TWIN = "10.201.0.1"  # the address of a VM of template twin
_LATE = 2  # seconds that a guest's clock may be off


def store(cluster: Cluster, place: Path, *words: str) -> str:
    """Store a cluster; return what the command says."""
    argv = ["pcocc", "checkpoint", "-j", str(cluster.job), *words, str(place)]
    return cluster.box.run(argv, status=0, timeout=240).stdout


def ensure_in_time(cluster: Cluster) -> None:
    """Fail unless the clocks of both guests are right, once their agents have been told the time."""

    def lag() -> float:
        before = time.time()
        seen = [int(line) for line in cluster.vm("date +%s", vms="vm[0-1]").split()]
        return max(before - 1 - min(seen), max(seen) - time.time())  # `date` prints whole seconds

    wait_for(lambda: lag() < _LATE, "the time", 20)


def ensure_counting(cluster: Cluster) -> None:
    """Fail unless the connection between the VMs lives."""
    first = int(cluster.vm("cat /tmp/count", vms="vm1"))
    wait_for(lambda: int(cluster.vm("cat /tmp/count", vms="vm1")) > first, "the connection to go on", 10)


def test_a_cluster_goes_on_in_another_job(box: Box, home: Path) -> None:
    place = home / "stored"
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
        cluster.vm(_LISTEN, vms="vm1")
        cluster.vm(_COUNT)
        wait_for(lambda: cluster.vm("cat /tmp/count || true", vms="vm1"), "the count")
        ensure_counting(cluster)
        assert store(cluster, place).startswith(f"stored 2 VMs in {place}; the VMs stood still for ")
        assert cluster.vm("cat /tmp/mark") == "kept", "it goes on"
        ensure_counting(cluster)
        ensure_in_time(cluster)
        cluster.vm(_WRITE, vms="vm1")
        older = os.readlink(place / "current")
        said = store(cluster, place, "--stop")
        assert said == f"stored 2 VMs in {place}; job {cluster.job} is cancelled\n"
        assert os.readlink(place / "current") != older
        assert sorted(one.name for one in place.iterdir()) == sorted([os.readlink(place / "current"), "current"])
        assert [one.name for one in home.iterdir()] == ["stored"]
        wait_for(lambda: box.is_over(cluster.job), "the job's end")
    with make_cluster(box, f"--pcocc-restart={place}", "-N1", "--nodelist=n2") as other:
        assert set(other.qemus()) == {"vm0", "vm1"} and other.node_of("vm0") == "n2"
        assert other.vm("cat /tmp/mark; hostname").split() == ["kept", "vm0"]
        ensure_in_time(other)
        assert other.vm("cat /written", vms="vm1") == "on-disk"
        ensure_counting(other)


def check_disk(layer: Path, directory: Path) -> list[str]:
    """Fail unless the file system on a stored disk is whole; return the lines of a file on it."""
    disk, part = read_disk(layer), directory / "part"
    first, count = struct.unpack_from("<II", disk, 446 + 8)  # of the first partition, in blocks of 512 bytes
    part.write_bytes(disk[first * 512 : (first + count) * 512])
    done = subprocess.run(["/sbin/e2fsck", "-fn", part], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    argv = ["/sbin/debugfs", "-R", f"cat {_NUMBERS}", part]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


def test_what_was_written_to_disk_before_is_there_and_the_file_system_whole(box: Box, home: Path, tmp_path: Path) -> None:
    place, again = home / "stored", home / "again"
    with make_cluster(box, "--pcocc-template=tiny", "-w", "n1") as cluster:
        cluster.vm(f"sudo touch {_NUMBERS}; sudo chmod 666 {_NUMBERS}")
        cluster.vm(_NUMBER + " sleep 1")
        wait_for(lambda: int(cluster.vm("cat /tmp/on-disk")) > 3, "some numbers")
        store(cluster, place, "--stop")
        wait_for(lambda: box.is_over(cluster.job), "the job's end")
    with make_cluster(box, f"--pcocc-restart={place}", "-w", "n2") as other:
        first = int(other.vm("cat /tmp/on-disk"))
        wait_for(lambda: int(other.vm("cat /tmp/on-disk")) > first, "it goes on")
        other.vm("pkill -f [o]n-disk; sync; sudo mount -o remount,ro /; echo 3 | sudo tee /proc/sys/vm/drop_caches")
        kept = int(other.vm("cat /tmp/on-disk"))
        numbers = other.vm(f"cat {_NUMBERS}").split()
        store(other, again, "--stop")
        assert check_disk(again / "current/vm0.disk", tmp_path) == numbers
        assert numbers == [str(number + 1) for number in range(len(numbers))], "none is missing, and none is there twice"
        assert kept <= len(numbers) <= kept + 1
        wait_for(lambda: box.is_over(other.job), "the job's end")


def test_another_job_has_keys_and_ports_of_its_own(box: Box, home: Path) -> None:
    place = home / "stored"
    with make_cluster(box, "--pcocc-template=twin", "-w", "n1") as cluster:
        former = read_keys(cluster)
        was = box.out(["pcocc", "ssh", f"vm0.{cluster.job}", "cat /etc/ssh/ssh_known_hosts"])
        store(cluster, place, "--stop")
        wait_for(lambda: box.is_over(cluster.job), "the job's end")
    again = home / "again"
    with make_cluster(box, f"--pcocc-restart={place}", "-w", "n2") as other:
        keys = read_keys(other, "n2")
        assert keys.user != former.user and keys.host != former.host
        assert log_in(other, keys.user, "alice", _TWIN).stdout == "alice\n"
        for user in ("alice", "root"):
            refused = log_in(other, former.user, user, _TWIN)
            assert refused.returncode == 255 and "Permission denied" in refused.stderr, refused.stderr
        assert other.vm("cat ~/.ssh/id_ed25519; sudo cat /run/pcocc-keys/host") + "\n" == keys.user + keys.host
        known = box.out(["pcocc", "ssh", f"vm0.{other.job}", "cat /etc/ssh/ssh_known_hosts"])
        assert len(known) == len(was) and known != was
        # sshd itself identifies the VM by its new key: vm0 knows no other
        assert other.vm("ssh -o StrictHostKeyChecking=yes vm0 hostname") == "vm0"
        assert [one.name for one in box.root("n2", f"/run/pcocc/{other.job}/vm0").glob("*key*")] == []
        [job] = [one for one in json.loads(box.out("pcocc ps -l --json")) if one["job"] == str(other.job)]
        ports = ",".join(f"{one['vm_port']}=n2:{one['host_port']}" for one in job["vm_list"][0]["forwards"])
        assert ports and other.vm("cat /etc/pcocc/host-ports; echo $PCOCC_HOST_PORTS").split() == [str(other.job), ports, ports]
        store(other, again, "--stop")
        wait_for(lambda: box.is_over(other.job), "the job's end")
    with make_cluster(box, f"--pcocc-restart={again}", "-w", "n1") as third:
        assert third.vm("cat /var/lib/cloud/instance-id") == f"pcocc-{cluster.job}-vm0"
        assert [log_in(third, one, "alice", _TWIN).stdout for one in (read_keys(third).user, keys.user)] == ["alice\n", ""]
        assert box.out(["pcocc", "ssh", f"vm0.{third.job}", "hostname"]) == "vm0"
        # a reboot reads the seed again, which has the new keys and the instance-id of the first job
        third.vm("touch /tmp/mark")
        box.out(["pcocc", "reset", f"vm0.{third.job}"])
        wait_for(lambda: box.run(["pcocc", "ssh", f"vm0.{third.job}", "test ! -e /tmp/mark"]).returncode == 0, "a boot", 90)
        assert log_in(third, read_keys(third).user, "alice", _TWIN).stdout == "alice\n"
        assert log_in(third, former.user, "alice", _TWIN).stdout == ""


def test_a_checkpoint_that_is_killed_leaves_cluster_and_older_one(box: Box, home: Path) -> None:
    place = home / "stored"
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
        store(cluster, place)
        older = os.readlink(place / "current")
        child = box.start(["pcocc", "checkpoint", "-j", str(cluster.job), str(place)])
        wait_for(lambda: len([*place.glob(".*/vm0.memory")]) > 1, "the memory", pause=0.01)
        for process in box.processes(f"pcocc checkpoint -j {cluster.job}"):
            os.kill(process.pid, signal.SIGKILL)
        box.finish(child)
        assert cluster.vm("hostname") == "vm0" and cluster.vm("hostname", vms="vm1") == "vm1"
        assert os.readlink(place / "current") == older
        store(cluster, place)
        assert len([*place.glob(".*")]) == 1, "what the killed command has left is gone"


def test_what_cannot_be_gone_on_from_is_refused_before_a_job_is_made(box: Box, home: Path) -> None:
    (home / "other").mkdir()
    before = box.job_count()
    for options, said in (
        ([f"--pcocc-restart={home}/other"], f"{home}/other is no checkpoint"),
        ([f"--pcocc-restart={home}/other", "--pcocc-template=tiny"], "--pcocc-restart and --pcocc-template exclude each other"),
    ):
        done = box.run(["sbatch", *options, "--wrap", "true"])
        assert done.returncode and said in done.stderr and done.stderr.count("pcocc: error:") == 1, done.stderr
    done = box.run(["sbatch", "--wrap", "true"], env={"PCOCC_RESTART": f"{home}/other", "PCOCC_IMAGE": "other"})
    assert done.returncode and f"{home}/other is no checkpoint" in done.stderr, "a variable works as well"
    assert box.job_count() == before

"""A stored VM is looked at, byte by byte, before it goes on."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime.documents.abilities import PLAIN
from pcocc_runtime.documents.boot import Boot, Keys, encode_boot
from pcocc_runtime.documents.checkpoint import (
    Checkpoint,
    SeenFile,
    StoredFile,
    VmCheckpoint,
    decode_vm_checkpoint,
    encode_checkpoint,
    encode_vm_checkpoint,
)
from pcocc_runtime.documents.cluster import Checkpoints, Cluster, Group, decode_cluster, encode_cluster
from pcocc_runtime.documents.hardware import Allocation, GuestNode, Shape, Topology
from pcocc_runtime.errors import PcoccError, RequestError
from pcocc_runtime.qemu.cpu import plan_smp
from pcocc_runtime.qemu.memory import ORDINARY, plan_memory
from pcocc_runtime.slurm.text import JobFacts
from pcocc_runtime.submit.restart import read_cluster_of
from pcocc_runtime.system import hardware, process
from pcocc_runtime.system.copy import hash_file
from pcocc_runtime.vm import restart as stored
from pcocc_runtime.vm import ssh_keys
from pcocc_runtime.vm.job_keys import make_boot
from pcocc_runtime.vm.plan import Hardware
from pcocc_runtime.vm.stored import find_own, find_stored, read_checkpoint

WORDS = (("-machine", "q35"), ("-cpu", "max"), ("-m", "size=256M"), ("-device", "virtio-rng-pci"))
ARGV = ["qemu", "-uuid", "u", *(word for pair in WORDS for word in pair)]


def put(place: Path, name: str, data: bytes) -> StoredFile:
    (place / name).write_bytes(data)
    return StoredFile(name, len(data), hash_file(place / name, lambda done, total: None))


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of one VM, with small files, and a drive beside it."""
    place, noise = tmp_path / "it/.here", random.Random(7)
    place.mkdir(parents=True)
    (tmp_path / "it/current").symlink_to(".here")
    (tmp_path / "drive").write_bytes(b"drive")
    status = (tmp_path / "drive").stat()
    drive = SeenFile(str(tmp_path / "drive"), status.st_size, status.st_mtime_ns)
    kinds = {kind: put(place, f"vm0.{kind}", noise.randbytes(3000)) for kind in ("memory", "disk", "vars")}
    record = VmCheckpoint(0, 7, "u", "7.2", "tcg", "", Topology(Shape(1)), WORDS, kinds, drives=(drive,))
    monkeypatch.setattr(process, "run", lambda _argv: "QEMU emulator version 7.2.22 (Debian)")
    put_record(place, record)
    return place


def put_record(place: Path, record: VmCheckpoint) -> None:
    boot = encode_boot(Boot(encode_cluster(Cluster((Group("tiny", 1),))), Keys("a", "b", "c", "d")))
    found = (put(place, "boot", boot.encode()), put(place, "vm0.json", encode_vm_checkpoint(record)))
    (place / "checkpoint.json").write_bytes(encode_checkpoint(Checkpoint(7, 1, 1, found)))


def take_all(place: Path, target: Path) -> None:
    """Do with a checkpoint all that comes before a VM runs."""
    cluster = read_cluster_of(str(place.parent))
    assert find_stored(str(place.parent), cluster).cluster.restart == str(place)
    found = stored.open_restart(place, 0, "qemu", "tcg")
    os.close(found.memory)
    stored.ensure_drives(found)
    found.ensure_same(ARGV)
    stored.take_variables(found, target / "variables")
    stored.take_disk(found, None, target / "disk")


def test_what_was_stored_is_taken(checkpoint: Path, tmp_path: Path) -> None:
    take_all(checkpoint, tmp_path)
    assert (tmp_path / "disk").read_bytes() == (checkpoint / "vm0.disk").read_bytes()
    cluster = read_cluster_of(str(checkpoint.parent))
    assert (cluster.vm_count, cluster.restart) == (1, str(checkpoint.parent))


@pytest.mark.thorough
def test_a_thousand_flipped_bytes_are_found_before_a_vm_runs(checkpoint: Path, tmp_path: Path) -> None:
    noise, files = random.Random(1), sorted(checkpoint.iterdir())
    for number in range(1000):
        path = files[number % len(files)]
        whole = path.read_bytes()
        at = noise.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << noise.randrange(8)]) + whole[at + 1 :])
        with pytest.raises(RequestError, match="is damaged: ") as caught:
            take_all(checkpoint, tmp_path)
        assert caught.value.hint and len(files) == 6
        path.write_bytes(whole)
    take_all(checkpoint, tmp_path)


def test_files_cut_short_or_gone_are_found(checkpoint: Path, tmp_path: Path) -> None:
    for path in sorted(checkpoint.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(RequestError, match="is damaged: "):
            take_all(checkpoint, tmp_path)
        path.unlink()
        with pytest.raises((PcoccError, OSError), match=path.name):
            take_all(checkpoint, tmp_path)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("version", "accel", "argv", "said"),
    [
        ("9.2", "tcg", ARGV, "vm0 was stored by QEMU 7.2, and this node has 9.2"),
        ("7.2", "kvm", ARGV, "vm0 was stored with the accelerator tcg, and this node has kvm"),
        ("7.2", "tcg", [word.replace("q35", "pc") for word in ARGV], "the machine: it was stored with 'q35.*', and would"),
        ("7.2", "tcg", [word.replace("max", "qemu64") for word in ARGV], "differ in the CPU model: it was stored with 'max'"),
        ("7.2", "tcg", [word.replace("256", "512") for word in ARGV], "differ in the memory: it was stored with 'size=256M'"),
        ("7.2", "tcg", [*ARGV, "-device", "x"], "vm0 was stored with 4 devices and other parts, and would have 5 now"),
        ("7.2", "tcg", [*ARGV[:-1], "x"], "vm0 would differ in a device: it was stored with 'virtio-rng-pci'"),
    ],
)
def test_each_mismatch_is_a_sentence(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, version: str, accel: str, argv: list[str], said: str
) -> None:
    monkeypatch.setattr(process, "run", lambda _argv: f"QEMU emulator version {version}.0")
    with pytest.raises(RequestError, match=said):
        found = stored.open_restart(checkpoint, 0, "qemu", accel)
        os.close(found.memory)
        found.ensure_same(argv)


def test_a_guest_that_sees_its_hosts_cpu_needs_the_same(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = decode_vm_checkpoint((checkpoint / "vm0.json").read_bytes(), "it")
    put_record(checkpoint, replace(record, cpu="A CPU @ 2 GHz"))
    monkeypatch.setattr(hardware, "read_cpu_name", lambda: "Another")
    with pytest.raises(RequestError, match="vm0 was stored on a CPU 'A CPU @ 2 GHz', and this node has 'Another'"):
        stored.open_restart(checkpoint, 0, "qemu", "tcg")


def test_a_guest_keeps_its_shape_on_other_cpus(checkpoint: Path) -> None:
    was = Topology(
        Shape(4, sockets=2, cores=2), cpus=(0, 1, 8, 9), nodes=(GuestNode(0, (0, 1), 128), GuestNode(1, (2, 3), 126)),
        distances=((10, 21), (21, 10)),
    )  # fmt: skip
    here = Topology(Shape(4, cores=4), cpus=(4, 5, 6, 7), emulator=(3,))
    record = decode_vm_checkpoint((checkpoint / "vm0.json").read_bytes(), "it")
    put_record(checkpoint, replace(record, topology=was))
    found = stored.open_restart(checkpoint, 0, "qemu", "tcg")
    os.close(found.memory)
    kept = found.keep_shape(Hardware(Allocation((), (), 8), here, 256, ORDINARY, PLAIN))
    assert (kept.topology.shape, kept.topology.cpus, kept.topology.emulator) == (was.shape, (4, 5, 6, 7), (3,))
    assert kept.memory == 254
    with pytest.raises(RequestError, match="the number of CPUs of vm0 was 4 when it was stored, and would be 1 now"):
        found.keep_shape(Hardware(Allocation((), (), 8), Topology(Shape(1)), 256, ORDINARY, PLAIN))
    shared = found.keep_shape(Hardware(Allocation((), (), 8), Topology(Shape(4, cores=4)), 256, ORDINARY, PLAIN)).topology
    assert shared.cpus == () and {plan_smp(one) for one in (was, kept.topology, shared)} == {plan_smp(was)}
    words = [plan_memory(254, one, ORDINARY, shared=False, has={"host-nodes"})[2] for one in (was, kept.topology)]
    assert words[0] == words[1] and len(words[0]) > 4, "what the guest sees"
    objects = plan_memory(254, kept.topology, ORDINARY, shared=False, has={"host-nodes"})[0]
    assert objects[1].endswith("host-nodes=0,policy=preferred") and objects[3].endswith("host-nodes=0,policy=preferred")


def test_a_drive_that_was_written_since_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "drive").write_bytes(b"other")
    with pytest.raises(RequestError, match=r"the persistent drive .* has changed since the checkpoint was made"):
        take_all(checkpoint, tmp_path)


def test_another_cluster_stored_since_is_refused(checkpoint: Path) -> None:
    cluster = read_cluster_of(str(checkpoint.parent))
    with pytest.raises(RequestError, match="has been replaced by one of another cluster"):
        find_stored(str(checkpoint.parent), replace(cluster, groups=(Group("tiny", 2),)))


def test_a_job_goes_on_from_what_it_has_stored_itself(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_keys, "make_keys", lambda comment: Keys(comment, "", "", ""))
    plan = Checkpoints(str(checkpoint.parent), 60)
    cluster = Cluster((Group("tiny", 1, cpus=4),), checkpoints=plan)
    assert find_own(cluster, 8) is None, "that is another job's"
    found = find_own(cluster, 7)
    assert found == (Cluster((Group("tiny", 1),), str(checkpoint), plan), Keys("a", "b", "c", "d"), 7)
    facts = JobFacts(7, 1, 1, 0, 0)
    boot = make_boot(replace(facts, restarts=1), cluster)
    assert decode_cluster(boot.cluster) == replace(found.cluster, first_job=7)
    assert (boot.keys, boot.former) == (Keys("pcocc-7", "", "", "", "d"), found.keys), "new ones, and those until then"
    assert make_boot(facts, cluster) == (encode_cluster(cluster), Keys("pcocc-7", "", "", ""), None), "it is its first run"
    assert find_stored(str(checkpoint.parent), Cluster((Group("tiny", 1),), "it", plan)).cluster.checkpoints == plan
    (checkpoint / "checkpoint.json").write_text("x")
    with pytest.raises(RequestError, match="is damaged"):
        find_own(cluster, 7)
    (checkpoint.parent / "current").unlink()
    assert find_own(cluster, 7) is None


@contextmanager
def another_user() -> Iterator[None]:
    """Have the block run with the rights of a user who owns nothing here."""
    os.seteuid(12345)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_checkpoint_of_another_user_is_a_sentence_wherever_it_is_read(checkpoint: Path) -> None:
    for one in (checkpoint.parent, *checkpoint.parents[:4]):
        one.chmod(0o755)
    checkpoint.parent.chmod(0o700)
    with another_user(), pytest.raises(RequestError, match=r"^the checkpoint \S+/it cannot be read: Permission denied") as caught:
        read_cluster_of(str(checkpoint.parent))
    assert caught.value.hint
    with another_user(), pytest.raises(RequestError, match=r"^the checkpoint .* cannot be read: Permission denied"):
        read_checkpoint(checkpoint)
    checkpoint.parent.chmod(0o755)
    for name, take in {"boot": lambda: find_stored(str(checkpoint.parent), Cluster((Group("tiny", 1),))),
                       "vm0.json": lambda: stored.open_restart(checkpoint, 0, "qemu", "tcg")}.items():  # fmt: skip
        (checkpoint / name).chmod(0o600)
        with another_user(), pytest.raises(RequestError, match=f"{name} is damaged: Permission denied"):
            take()
        (checkpoint / name).chmod(0o644)


def test_half_a_checkpoint_is_a_sentence(checkpoint: Path) -> None:
    (checkpoint / "checkpoint.json").unlink()
    with pytest.raises(RequestError, match=r"^the checkpoint's file \S+/current/checkpoint\.json cannot be read: No such file"):
        read_cluster_of(str(checkpoint.parent))
    with pytest.raises(RequestError, match=r"is no checkpoint: it has no checkpoint\.json"):
        find_stored(str(checkpoint.parent), Cluster((Group("tiny", 1),)))
    (checkpoint.parent / "current").unlink()
    (checkpoint.parent / "current").symlink_to(".gone")
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        read_cluster_of(str(checkpoint.parent))


@pytest.mark.parametrize(("name", "why"), [("nothing", "No such file or directory"), ("drive", "Not a directory")])
def test_what_is_no_directory_is_a_sentence(checkpoint: Path, tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(RequestError, match=f"^the checkpoint {tmp_path}/{name} cannot be read: {why}") as caught:
        read_cluster_of(str(tmp_path / name))
    assert caught.value.hint


def test_another_directory_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is no checkpoint: it has no current"):
        read_cluster_of(str(tmp_path))
    with pytest.raises(RequestError, match="is no checkpoint"):
        read_checkpoint(tmp_path)

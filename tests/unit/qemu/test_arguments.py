"""QEMU's arguments for what a template can say, as golden words."""

import itertools
import json
import re
from dataclasses import replace

import pytest

from pcocc_runtime.documents.queues import Queue
from pcocc_runtime.qemu.arguments import Export, Kernel, Nic, SharedFs, Uefi, describe_devices, plan_qemu_argv
from pcocc_runtime.qemu.disks import Disk, DiskIo, machine_kind, most_disks, plan_disks, plan_io
from pcocc_runtime.qemu.functions import PassedFunction
from tests.unit.qemu.plans import PLAN


def added(**changes: object) -> list[str]:
    """Return the words that a change of the plan adds."""
    plain = plan_qemu_argv(PLAN)
    return [word for word in plan_qemu_argv(replace(PLAN, **changes)) if word not in plain]  # type: ignore[arg-type]


DISKS = (Disk("/b.qcow2"), Disk("/d", "raw", "none", True, True), Disk("/e", "raw", "writeback", True, False))


@pytest.mark.parametrize(
    ("model", "machine", "devices"),
    [
        ("virtio", "q35", ["virtio-blk-pci,drive=disk0,bootindex=1,num-queues=2,iothread=disk0-0",
                           "virtio-blk-pci,drive=disk1,share-rw=on,num-queues=2,iothread=disk1-0",
                           "virtio-blk-pci,drive=disk2,share-rw=on,num-queues=2,iothread=disk2-0", "virtio-blk-pci,drive=seed"]),
        ("virtio-scsi", "pc",
         ["virtio-scsi-pci,id=scsi,num_queues=2,iothread=scsi-0",
          "scsi-hd,bus=scsi.0,drive=disk0,bootindex=1", "scsi-hd,bus=scsi.0,drive=disk1,share-rw=on",
                               "scsi-hd,bus=scsi.0,drive=disk2,share-rw=on", "scsi-cd,bus=scsi.0,drive=seed"]),
        ("ide", "q35", ["ide-hd,bus=ide.0,drive=disk0,bootindex=1", "ide-hd,bus=ide.1,drive=disk1,share-rw=on",
                        "ide-hd,bus=ide.2,drive=disk2,share-rw=on", "ide-cd,bus=ide.3,drive=seed"]),
        ("ide", "pc-i440fx-7.2",
         ["ide-hd,bus=ide.0,unit=0,drive=disk0,bootindex=1", "ide-hd,bus=ide.0,unit=1,drive=disk1,share-rw=on",
                                  "ide-hd,bus=ide.1,unit=0,drive=disk2,share-rw=on", "ide-cd,bus=ide.1,unit=1,drive=seed"]),
        ("ide", "usb=off,type=pc",
         ["ide-hd,bus=ide.0,unit=0,drive=disk0,bootindex=1", "ide-hd,bus=ide.0,unit=1,drive=disk1,share-rw=on",
                                    "ide-hd,bus=ide.1,unit=0,drive=disk2,share-rw=on", "ide-cd,bus=ide.1,unit=1,drive=seed"]),
    ],
)  # fmt: skip
def test_disks_by_model(model: str, machine: str, devices: list[str]) -> None:
    words = plan_disks(model, machine, DISKS, "/seed", DiskIo((), 2))
    numbered = [re.sub(r"drive=(disk\d)", r"drive=\1,serial=\1", device) for device in devices]
    made = [after for word, after in itertools.pairwise(words) if word == "-object"]
    assert made == [f"iothread,id={name}" for name in re.findall(r"iothread=([^, ]+)", " ".join(words))]
    assert [after for word, after in itertools.pairwise(words) if word == "-device"] == numbered
    assert next(word for word in words if "id=disk0," in word and word.startswith("file=")) == (
        "file=/b.qcow2,format=qcow2,if=none,id=disk0,cache=unsafe,discard=unmap,detect-zeroes=unmap,"
        "werror=stop,rerror=stop,aio=threads"
    )
    assert [word for word in words if word.endswith("file.locking=off")] == [
        "file=/e,format=raw,if=none,id=disk2,cache=writeback,discard=unmap,detect-zeroes=unmap,werror=stop,rerror=stop,"
        "aio=threads,file.locking=off"
    ]


def test_disks_are_read_and_written_as_the_node_can() -> None:
    def ways(*works: str) -> list[str]:
        words = plan_disks("virtio", "q35", DISKS, "/seed", DiskIo(works))
        return [word.partition("aio=")[2] for word in words if word.startswith("file=")]

    assert ways("io_uring", "native") == ["io_uring", "io_uring", "io_uring,file.locking=off", ""]  # the seed is read once
    assert ways("native") == ["threads", "native", "threads,file.locking=off", ""]  # only where the host's cache is left out
    assert ways() == ["threads", "threads", "threads,file.locking=off", ""]


@pytest.mark.parametrize(
    ("vcpus", "has", "queues", "threads"),
    [(1, {"vq-mapping"}, 1, 1), (7, {"vq-mapping"}, 7, 1), (8, {"vq-mapping"}, 8, 2), (8, set(), 8, 1),
     (64, {"vq-mapping"}, 64, 4), (4096, set(), 256, 1)],
)  # fmt: skip
def test_a_disk_has_a_queue_for_each_vcpu(vcpus: int, has: set[str], queues: int, threads: int) -> None:
    assert plan_io(vcpus, ("native",), has) == DiskIo(("native",), queues, threads, bool(has))


@pytest.mark.parametrize("model", ["virtio", "virtio-scsi"])
def test_a_persistent_drive_has_a_thread_only_where_it_can_be_saved_all_the_same(model: str) -> None:
    disks = (DISKS[0], replace(DISKS[1], persistent=True))
    old, new = (" ".join(plan_disks(model, "q35", disks, "/seed", plan_io(2, (), has))) for has in (set(), {"vq-mapping"}))
    assert re.findall(r"iothread=(\S+)", old) == (["disk0-0"] if model == "virtio" else [])
    assert re.findall(r"iothread=(\S+)", new) == (["disk0-0", "disk1-0"] if model == "virtio" else ["scsi-0"])
    assert len(re.findall("num.queues=2", old)) == (2 if model == "virtio" else 1)


def test_a_qemu_that_can_spreads_a_disks_queues_over_threads() -> None:
    """From QEMU 9.0 on; in older ones a single thread serves all queues."""
    words = plan_disks("virtio", "q35", DISKS[1:2], "/seed", DiskIo((), 8, 2))
    assert [after for word, after in itertools.pairwise(words) if word == "-object"] == [
        "iothread,id=disk0-0", "iothread,id=disk0-1",
    ]  # fmt: skip
    assert json.loads(words[words.index("-device") + 1]) == {
        "driver": "virtio-blk-pci", "drive": "disk0", "serial": "disk0", "bootindex": 1, "share-rw": True, "num-queues": 8,
        "iothread-vq-mapping": [{"iothread": "disk0-0"}, {"iothread": "disk0-1"}],
    }  # fmt: skip


def test_ide_has_few_ports() -> None:
    found = [most_disks(*names) for names in (("ide", "q35"), ("ide", "pc"), ("ide", "pc-q35-7.2"), ("virtio", "q35"))]
    assert found == [5, 3, 5, 16]


def test_a_kernel_brings_its_own_command_line() -> None:
    assert added(kernel=Kernel("/k")) == ["-kernel", "/k", "-append", "console=ttyS0 root=/dev/vda1"]
    assert added(kernel=Kernel("/k", "/i", "a,b")) == ["-kernel", "/k", "-initrd", "/i", "-append", "a,b"]
    assert "console=ttyS0 root=/dev/sda1" in added(kernel=Kernel("/k"), disk_model="ide")


def test_uefi_reads_its_code_and_writes_its_own_variables() -> None:
    assert added(firmware=Uefi("/code", "/vars")) == [
        "if=pflash,unit=0,format=raw,readonly=on,file=/code", "if=pflash,unit=1,format=raw,file=/vars",
    ]  # fmt: skip


def test_displays_are_unix_sockets() -> None:
    devices = ["VGA", "qemu-xhci", "usb-tablet"]
    assert added(display="vnc", display_path="/run/vnc") == [*devices, "-vnc", "unix:/run/vnc"]
    assert added(display="spice", display_path="/run/spice") == [
        *devices, "-spice", "unix=on,addr=/run/spice,disable-ticketing=on", "spicevmc,id=vdagent,name=vdagent",
        "virtserialport,chardev=vdagent,name=com.redhat.spice.0",
    ]  # fmt: skip


def test_virtiofs_shares_the_guests_memory() -> None:
    assert [word for word in added(filesystems=(SharedFs("data", 7),)) if word != "-object"] == [
        "memory-backend-memfd,id=ram,size=300M,share=on", "q35,vmport=off,dump-guest-core=off,memory-backend=ram",
        "socket,id=virtiofs0,fd=7", "vhost-user-fs-pci,chardev=virtiofs0,tag=data",
    ]  # fmt: skip


def test_an_interface_has_a_queue_for_each_descriptor() -> None:
    """With the kernel's part of each (vhost) where that is handed over, too; vectors are two a queue and two more."""
    def words(*queues: Queue, model: str = "virtio-net-pci") -> list[str]:
        return added(nics=(Nic(queues, "m", 1450),), nic_model=model)

    assert words(Queue(7)) == ["tap,id=net0,fd=7", "virtio-net-pci,netdev=net0,mac=m,host_mtu=1450,romfile="]
    assert words(Queue(7, 8))[0] == "tap,id=net0,fd=7,vhost=on,vhostfd=8"
    assert words(Queue(7, 8), Queue(9, 10)) == [
        "tap,id=net0,fds=7:9,vhost=on,vhostfds=8:10",
        "virtio-net-pci,netdev=net0,mac=m,host_mtu=1450,mq=on,vectors=6,romfile=",
    ]
    assert words(Queue(7), Queue(9))[0] == "tap,id=net0,fds=7:9"
    assert words(Queue(7), model="e1000") == ["tap,id=net0,fd=7", "e1000,netdev=net0,mac=m,romfile="]


def test_functions_are_devices_on_the_root_bus() -> None:
    words = plan_qemu_argv(replace(PLAN, functions=(PassedFunction("0000:81:00.2"), PassedFunction("0000:81:00.4", 1))))
    assert [word for word in words if "vfio" in word] == ["vfio-pci,host=0000:81:00.2", "vfio-pci,host=0000:81:00.4"]
    nic = next(place for place, word in enumerate(words) if word.startswith("virtio-net-pci"))
    assert words.index("vfio-pci,host=0000:81:00.2") > nic


def test_a_read_only_export_is_read_only_in_qemu() -> None:
    words = added(exports=(Export("t", "/a,b", True),))
    assert words == [
        "-fsdev", "local,id=fs0,path=/a,,b,security_model=none,multidevs=remap,readonly=on",
        "virtio-9p-pci,fsdev=fs0,mount_tag=t",
    ]


@pytest.mark.parametrize(
    ("machine", "kind"),
    [("pc", "pc"), ("type=pc", "pc"), ("pc,usb=off", "pc"), ("usb=off,type=q35", "q35"), ("type=pc,type=q35", "q35"),
     ("pc,type=q35", "q35"), ("usb=off", "")],
)  # fmt: skip
def test_a_machine_is_named_first_or_as_its_type(machine: str, kind: str) -> None:
    assert machine_kind(machine) == kind
    assert ("vmport=off" in ",".join(added(machine=machine))) is (kind != "")


@pytest.mark.parametrize(
    ("accel", "machine", "off"),
    [("kvm", "q35", True), ("kvm", "pc", True), ("kvm", "microvm", False), ("tcg", "q35", False), ("kvm", "q35,hpet=on", False)],
)
def test_no_hpet_ticks_where_kvm_has_a_timer(accel: str, machine: str, off: bool) -> None:
    words = plan_qemu_argv(replace(PLAN, accel=accel, machine=machine))
    assert (",hpet=off" in words[words.index("-machine") + 1]) is off


def test_many_mounts_are_behind_a_bridge() -> None:
    exports = tuple(Export(f"t{number}", "/d", False) for number in range(18))
    few = plan_qemu_argv(replace(PLAN, exports=exports))
    assert not [word for word in few if "more" in word]
    words = plan_qemu_argv(replace(PLAN, exports=(*exports, exports[0]), filesystems=(SharedFs("v", 7),)))
    devices = [after for word, after in itertools.pairwise(words) if word == "-device"]
    assert devices[:3] == [after for word, after in itertools.pairwise(few) if word == "-device"][:3]
    assert devices[3] == "pci-bridge,id=more,chassis_nr=1,shpc=off"
    assert devices[4] == "virtio-9p-pci,fsdev=fs0,mount_tag=t0,bus=more,multifunction=on,addr=1.0"
    assert devices[12] == "virtio-9p-pci,fsdev=fs8,mount_tag=t8,bus=more,multifunction=on,addr=2.0"
    assert devices[-9:-4] == [
        "vhost-user-fs-pci,chardev=virtiofs0,tag=v,bus=more,multifunction=on,addr=3.3",
        "virtio-rng-pci,rng=rng,bus=more,multifunction=on,addr=3.4", "virtio-serial-pci,bus=more,multifunction=on,addr=3.5",
        "virtserialport,chardev=agent,name=org.qemu.guest_agent.0", "pvpanic-pci,bus=more,multifunction=on,addr=3.6",
    ]  # fmt: skip


def test_devices_are_told_with_who_serves_them() -> None:
    nics = (Nic((Queue(5, 6), Queue(7, 8)), "m", 1450), Nic((Queue(9),), "m", 1450))
    plan = replace(PLAN, io=DiskIo(("io_uring",), 2), nics=nics)
    assert describe_devices(plan) == (
        "disk0: 2 queues, 1 threads of its own, io_uring", "eth0: 2 queues, the kernel (vhost)", "eth1: 1 queues, QEMU itself",
    )  # fmt: skip
    assert describe_devices(replace(plan, disk_model="ide"))[0] == "disk0: 1 queues, 0 threads of its own, io_uring"

"""The machine's hardware, as QEMU's words: two sockets, two NUMA nodes, an IOMMU, functions with virtual ones on the second node.

Facts: hw/i386/intel_iommu.c (interrupts are remapped with a split irqchip only), docs/pcie_sriov.txt,
hw/nvme/ctrl.c: NVMe is `unmigratable`, and a namespace cannot be plugged in later, so a machine is saved and
continued without.
"""

from __future__ import annotations

CPUS, MEGABYTES = 4, 4096
FILES, SOCKETS = "/machine", "/sockets"  # where QEMU, in the root directory, finds the place and its sockets
_KERNEL = (
    "root=/dev/vda rw console=ttyS0 quiet mitigations=off nokaslr tsc=reliable no_timer_check lpj=4000000 audit=0"
    " panic=-1 net.ifnames=0 intel_iommu=on iommu=nopt systemd.show_status=0 fsck.mode=skip udev.event_timeout=1800"
)


def render_argv(threads: int = 1) -> list[str]:
    """Return the command that runs the machine inside its own root directory; its memory and disks are below FILES.

    Its cores have so many threads each; it has CPUS of these in all.
    """
    # emulated SVM needs `max`; a kernel that is no boot image starts by PVH
    # AMD's CPUs show threads by topoext, which QEMU describes right but does not count among what it emulates
    model = "max" if threads == 1 else "max,topoext=on,x-force-features=on"
    cpu = ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", model, "-M", "q35,kernel-irqchip=split"]
    boot = ["-kernel", f"{FILES}/disk/vmlinux", "-initrd", f"{FILES}/disk/initrd", "-append", _KERNEL]
    doors = ["-chardev", f"file,id=console,path={FILES}/running/console,append=on", "-serial", "chardev:console"]
    doors += ["-chardev", f"socket,id=qmp,path={SOCKETS}/qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control"]
    first = [
        "qemu-system-x86_64", "-name", "pcocc-node-machine,debug-threads=on", "-nodefaults", "-no-user-config",
        "-display", "none",
    ]
    return [*first, *cpu, *_memory(threads), *boot, *doors, *_own_devices(), *_second_complex()]


def _memory(threads: int) -> list[str]:
    half, cpus = MEGABYTES // 2, CPUS // 2
    words = ["-m", str(MEGABYTES), "-smp", f"{CPUS},sockets=2,cores={cpus // threads},threads={threads}"]
    for node in (0, 1):
        words += ["-object", f"memory-backend-ram,id=memory{node},size={half}M"]
        words += ["-numa", f"node,nodeid={node},cpus={node * cpus}-{node * cpus + cpus - 1},memdev=memory{node}"]
    for one, other in ((0, 1), (1, 0)):
        words += ["-numa", f"dist,src={one},dst={other},val=21"]
    return words


def _own_devices() -> list[str]:
    """Return what the node itself uses, on the first root complex; nothing of it reaches beyond this host's loopback."""
    disk = f"file={FILES}/running/disk.qcow2,format=qcow2,if=none,id=disk,cache=unsafe,discard=unmap"
    network = "user,id=own,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"
    return ["-device", "intel-iommu,intremap=on", "-device", "virtio-rng-pci", "-drive", disk, "-device",
            "virtio-blk-pci,drive=disk",
            "-netdev", network, "-device", "virtio-net-pci,netdev=own,mac=52:54:00:00:02:15,romfile="]  # fmt: skip


def _second_complex() -> list[str]:
    """Return a root complex on NUMA node 1: each of its ports has ACS, so each function is an IOMMU group of its own."""
    words = ["-device", "pxb-pcie,id=complex1,bus_nr=128,numa_node=1,bus=pcie.0"]
    for slot in (1, 2):
        words += ["-device", f"pcie-root-port,id=port{slot},bus=complex1,chassis={slot},slot={slot}"]
    igb = "igb,id=igb0,bus=port1,netdev=fabric,mac=52:54:00:00:09:01,romfile="
    return [*words, "-netdev", "user,id=fabric,net=10.9.0.0/24,restrict=on", "-device", igb]


def render_nvme() -> list[str]:
    """Return an NVMe controller with four virtual functions, for a machine that starts cold."""
    limits = "sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,max_ioqpairs=16,msix_qsize=16"
    return ["-drive", f"file={FILES}/running/nvme.raw,format=raw,if=none,id=nvme,cache=unsafe",
            "-device", "nvme-subsys,id=subsystem,nqn=node",
            "-device", f"nvme,id=nvme0,serial=node,bus=port2,subsys=subsystem,{limits}",
            "-device", "nvme-ns,drive=nvme,nsid=1,shared=on,bus=nvme0"]  # fmt: skip

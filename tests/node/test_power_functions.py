"""VMs with virtual functions of an Ethernet device and of an NVMe controller, over the failure of the node's power.

NVMe is there after a cold start only. Under emulation, which is far too slow for a Linux here, a boot sector is the guest: it
reads from its second disk, which is the function, by the firmware's driver, and writes to the console what it has read.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node import functions
from tests.node.fabric import find_addresses, is_root_s, ping, read_macs
from tests.node.functions import Functions, owners
from tests.node.node import Job, Node, accelerator, submit, submit_cluster
from tests.waiting import wait_for

BLOCK, SAID = "/dev/nvme0n1", "node's block"
# xor ax,ax; ds = es = ss = ax; sp = 0x7c00; int 0x13, ah = 2: sector 1 of drive 0x81 to 0x8000; 16 bytes of it to COM1; hlt
SECTOR = bytes.fromhex("31c0 8ed8 8ec0 8ed0 bc007c b80102 bb0080 b90100 ba8100 cd13 be0080 b91000 baf803 ac ee e2fc f4 ebfd")
READER = "/srv/images/reader.raw"


@pytest.fixture(scope="module")
def cold(node: Node) -> Node:
    """The machine after a cold start, with its NVMe controller."""
    if node.run("test -e /sys/class/nvme/nvme0").returncode:
        node.power_cycle()
    return node


@pytest.fixture(scope="module")
def kinds(cold: Node) -> Iterator[dict[str, Functions]]:
    """Two functions of each device, which VMs can have; the node's own function of the NVMe controller has written a block."""
    found = functions.begin(cold, "nic", "nvme")
    cold.out(f"printf \"{SAID}\" | dd of={BLOCK} conv=sync,fsync status=none")
    yield found
    functions.end(cold)


def read_block(job: Job, vm: str) -> str:
    """Return what a VM finds at the beginning of its function's disk."""
    return job.vm(f"sudo -n head -c {len(SAID)} {BLOCK}", vm)


def test_two_vms_have_two_functions_each_and_keep_them_when_they_start_again(
    cold: Node, kinds: dict[str, Functions]
) -> None:
    job = submit_cluster(cold, "both:2", "-N1", "--gres=nic:2,nvme:2")
    for vm in ("vm0", "vm1"):
        assert read_block(job, vm) == SAID
        find_addresses(job, vm)
        ping(job, vm, "10.9.0.2")
    job.vm(f"printf 'vm1 was here' | sudo -n dd of={BLOCK} seek=1 conv=sync,fsync", "vm1")
    assert job.vm(f"sudo -n dd if={BLOCK} skip=1 count=1 iflag=direct 2>/dev/null | head -c 12", "vm0") == "vm1 was here"
    assert cold.out(f"dd if={BLOCK} skip=1 count=1 iflag=direct status=none | head -c 12") == "vm1 was here"
    before, qemus, macs = job.vm("cat /proc/sys/kernel/random/boot_id"), cold.qemus(job.number), read_macs(cold)
    cold.out(["bash", "-c", f". ~/job{job.number}; exec pcocc reset vm0"], "alice")
    wait_for(lambda: job.srun("--pcocc-vm=vm0", "cat", "/proc/sys/kernel/random/boot_id").stdout.strip() not in ("", before),
             "the guest's second start", 300, 2)  # fmt: skip
    assert (cold.qemus(job.number), read_macs(cold)) == (qemus, macs)
    find_addresses(job, "vm0")
    ping(job, "vm0", "10.9.0.2")
    assert read_block(job, "vm0") == SAID


def test_after_a_power_failure_their_functions_are_free_and_the_next_user_has_them(
    cold: Node, kinds: dict[str, Functions]
) -> None:
    """With the VMs of the test before, of which nothing is left; functions are made and bound again before slurmd starts."""
    assert all(owners(cold, one) == ["alice", "alice"] for one in kinds.values())
    cold.power_cycle()
    jobs = cold.out("squeue --noheader --format=%A").split()
    cold.out(["scancel", *jobs] if jobs else "true")
    cold.wait_idle(240)
    assert is_root_s(cold, kinds["nic"]) and owners(cold, kinds["nvme"]) == ["root", "root"]
    assert [(one.gres, one.files) for one in functions.parse_gres(cold.out("pcocc node devices"))] == [
        (one.gres, one.files) for one in kinds.values()
    ]
    job = submit_cluster(cold, "disk", "--gres=nvme:1", user="bob")
    assert owners(cold, kinds["nvme"]) == ["bob", "root"] and read_block(job, "vm0") == SAID
    job.end()
    assert owners(cold, kinds["nvme"]) == ["root", "root"]


@pytest.fixture
def emulated(cold: Node, kinds: dict[str, Functions]) -> Iterator[None]:
    """A site that uses no KVM, and the boot sector as an image."""
    cold.out(f"truncate -s 1M {READER}; chmod 644 {READER}")
    image = bytearray(512)
    image[: len(SECTOR)], image[510:] = SECTOR, b"\x55\xaa"
    cold.out(["dd", f"of={READER}", "conv=notrunc", "status=none"], data=bytes(image))
    kept = cold.read("/etc/pcocc/pcocc.yaml")
    cold.write("/etc/pcocc/pcocc.yaml", f"{kept}\naccel: tcg\n")
    yield
    cold.write("/etc/pcocc/pcocc.yaml", f"{kept}\n")


def test_an_emulated_vm_reads_blocks_through_its_function(cold: Node, kinds: dict[str, Functions], emulated: None) -> None:
    job = submit(cold, "reader", "--gres=nvme:1")
    [pid] = job.wait_for_qemus(1).values()
    assert accelerator(cold, pid).startswith("tcg") and owners(cold, kinds["nvme"]) == ["alice", "root"]
    console = f"/run/pcocc/{job.number}/vm0/console.log"
    wait_for(lambda: SAID in cold.run(["cat", console]).stdout, lambda: cold.run(["cat", console]).stdout, 600, 2)
    job.end()
    assert owners(cold, kinds["nvme"]) == ["root", "root"]

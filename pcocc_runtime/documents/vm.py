"""What the launcher of a VM tells the VM's keeper: one word of the keeper's command line."""

from __future__ import annotations

import json

from pcocc_runtime.documents.record import Record, parse_record

DRIVES_FILE = "drives"  # in the directory of a VM that was given persistent drives while it runs
KEPT_FILE = "kept"  # in the directory of a VM that stays when its guest has powered off


class VmFacts(Record):
    """A VM, and the descriptors that its keeper inherits.

    `pid` is QEMU's; `qmp`, `probe` and `watch` are descriptors: a connection to QEMU, a TCP socket in the
    job's network namespace (None: nothing there can be reached), and the lock of system/watch.py. `address`
    is empty where the VM has none. `timeout` is how many seconds the guest has to answer, `grace` how many to
    power off, 0 when nobody asks it to. `disks` are their files by QEMU's names of them. `cpus` are those
    that vCPUs are bound to, in order; `emulator` those for QEMU's other threads; each is empty for none. QEMU
    writes the guest's serial console to the file `console`, of which `console_size` bytes are kept. `mounts`
    are the tags that the guest is to mount, with their types. `logs` are other files that grow with what the
    guest does. The guest's agent is reached by the socket `agent`, and by the keeper alone at QEMU's own,
    `agent_port`. A VM to `keep` stays when its guest has powered off. `incoming` is what QEMU calls the memory
    that it goes on from (qemu/memory_file.py), empty where it boots. A VM that was given persistent drives while it
    runs has `drives_grace` seconds to power off, or `grace` where that is more. A VM that is `stored` when its job
    ends is given time for that.
    """

    job: int
    rank: int
    node: str
    pid: int
    qmp: int
    probe: int | None
    watch: int
    address: str
    user: str
    timeout: int
    directory: str
    accel: str
    accel_why: str
    kvm_expected: bool
    disks: dict[str, str]
    cpus: list[int]
    emulator: list[int]
    grace: int
    agent: str
    agent_port: str
    console: str
    console_size: int
    mounts: dict[str, str] = {}
    keep: bool = False
    logs: list[str] = []
    incoming: str = ""
    stored: bool = False
    drives_grace: int = 0


def encode_vm(facts: VmFacts) -> str:
    """Return the word; it begins with job and rank, by which people find a keeper among the processes."""
    return json.dumps(facts._asdict())


def decode_vm(text: str) -> VmFacts:
    """Return what `encode_vm` has encoded; ValueError with a sentence when it is not that."""
    try:
        return parse_record(VmFacts, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the VM's description by its launcher cannot be read: {error}") from None

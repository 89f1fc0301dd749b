"""What this VM's QEMU can do: told with the node, or asked once for a job and kept in the job's directory."""

from __future__ import annotations

from pcocc_runtime import naming
from pcocc_runtime.documents.abilities import (
    MAX_ABILITIES,
    PLAIN,
    Abilities,
    decode_abilities,
    encode_abilities,
)
from pcocc_runtime.documents.node import NodeFacts
from pcocc_runtime.system import files, regular
from pcocc_runtime.system.qemu_abilities import ask_qemu, identify


def find_abilities(node: NodeFacts, qemu: str, model: str | None, kvm_fd: int | None = None) -> Abilities:
    """Return what `qemu` can do, and what a named CPU model lacks with KVM; PLAIN when it does not say.

    PLAIN has nothing that QEMU's releases differ in.
    """
    accel = node.accel if model else "tcg"  # only the answer about models depends on KVM
    if accel == "tcg" and qemu == node.qemu and node.has is not None:
        return Abilities(has=frozenset(node.has))
    key = identify(qemu, accel)
    if key is None:
        return PLAIN  # the launcher says later that it cannot be run
    place = naming.job_dir(node.job) / naming.ABILITIES_FILE
    found = decode_abilities(regular.read_start(place, MAX_ABILITIES), key)
    if found is None and (found := ask_qemu(qemu, accel, kvm_fd)) is not None:
        files.replace_file(place, encode_abilities(found, key))
    return found or PLAIN

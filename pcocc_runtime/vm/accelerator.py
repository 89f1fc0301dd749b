"""The accelerator of one VM: its node's, if the VM's user can have it."""

from __future__ import annotations

import grp
import os
from dataclasses import replace

from pcocc_runtime.documents.node import NodeFacts
from pcocc_runtime.documents.verdict import KVM_DEVICE
from pcocc_runtime.qemu.version import TAKES_KVM_OPEN, parse_version
from pcocc_runtime.system import accounts, process


def choose_accelerator(node: NodeFacts, qemu: str, handed: int | None) -> tuple[NodeFacts, int | None]:
    """Return the node with the accelerator that `qemu` can use, and root's open /dev/kvm if it needs that.

    NodeError when that QEMU cannot be run.
    """
    if node.accel != "kvm" or os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return node, None
    version = parse_version(process.run([qemu, "--version"])) if handed is not None else None
    if version is not None and version >= TAKES_KVM_OPEN:
        return node, handed
    return replace(node, accel="tcg", accel_why=_explain()), None


def _explain() -> str:
    """Return why this user has no KVM, and the command that gives it."""
    try:
        group = grp.getgrgid(os.stat(KVM_DEVICE).st_gid).gr_name
    except FileNotFoundError:
        return f"the node has no {KVM_DEVICE}"
    except KeyError:
        group = "kvm"
    least = ".".join(map(str, TAKES_KVM_OPEN))
    return (
        f"you may not open {KVM_DEVICE}, and only QEMU {least} and later can take it opened by root; the admins"
        f" can allow you to open it by 'usermod -aG {group} {accounts.user_name()}' there, or everybody by"
        f" 'chmod 666 {KVM_DEVICE}'"
    )

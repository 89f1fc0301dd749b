"""The system calls that a server which guests talk to may make: a filter of seccomp(2), as bpf."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_KEEPCAPS = 8  # PR_SET_KEEPCAPS, linux/prctl.h
_ANY_NEW = 0x7E020000  # the flags of clone(2) that make namespaces: linux/sched.h
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_DENIED = (
    "ptrace unshare setns mount bpf keyctl add_key request_key perf_event_open process_vm_readv"
    " process_vm_writev userfaultfd io_uring_setup"
)
# by machine: AUDIT_ARCH of linux/audit.h; the numbers of capset, prctl, clone, socket, and of what is denied,
# in its order
_CALLS = {
    "x86_64": (
        0xC000003E, 126, 157, 56, 41, (101, 272, 308, 165, 321, 250, 248, 249, 298, 310, 311, 323, 425),
    ),
    "aarch64": (
        0xC00000B7, 91, 167, 220, 198, (117, 97, 268, 40, 280, 219, 217, 218, 241, 270, 271, 282, 425),
    ),
}


def plan_call_filter(machine: str) -> bytes:
    """Return the filter for a machine as uname(2) calls it; KeyError for one that is not known.

    Calls that would keep capabilities when root is given up do nothing and report success; making or entering
    a namespace is refused.
    """
    return _plan(*_CALLS[machine])


def _plan(arch: int, capset: int, prctl: int, clone: int, socket: int, denied: Sequence[int]) -> bytes:
    # LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, JMP|JSET|K, RET|K of linux/bpf_common.h
    load, equal, above, some, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, nothing, refuse, unknown, kill = (
        (give, 0, 0, result) for result in (0x7FFF0000, 0x50000, 0x50001, 0x50026, 0x80000000)
    )

    def on(number: int, *block: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
        return [(equal, 0, len(block), number), *block]

    # the lower half of the call's first argument, behind number, machine and address
    first = (load, 0, 0, 16)
    families = [(equal, len(_FAMILIES) - place, 0, family) for place, family in enumerate(_FAMILIES)]
    # x32
    program = [(load, 0, 0, 4), (equal, 1, 0, arch), kill, (load, 0, 0, 0), (above, 0, 1, 0x40000000), refuse]
    # clone3
    program += (
        on(capset, nothing) + on(prctl, first, (equal, 0, 1, _KEEPCAPS), nothing, allow) + on(435, unknown)
    )
    program += on(clone, first, (some, 0, 1, _ANY_NEW), refuse, allow) + on(
        socket, first, *families, refuse, allow
    )
    program += [step for number in denied for step in on(number, refuse)]
    return b"".join(struct.pack("=HBBI", *step) for step in (*program, allow))

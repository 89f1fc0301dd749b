"""A server that strangers talk to, such as dnsmasq: root binds what it needs, and then it has nothing of the host.

It starts as root in the caller's network namespace, with its own mounts, processes and IPC, and sees programs, libraries and its
configuration only. Once it gives root up for its own uid it keeps no capability, whatever it asks for, and never gets one again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from pcocc_runtime.errors import NodeError
from pcocc_runtime.system.drop import die_with_parent
from pcocc_runtime.system.libc import LIBC, mount, require

_NEW = 0x00020000 | 0x20000000 | 0x08000000  # CLONE_NEWNS, NEWPID, NEWIPC: linux/sched.h
_ANY_NEW = 0x7E020000  # the flags of clone(2) that make namespaces
_MS_PRIVATE, _MS_BIND, _MS_MOVE = 1 << 14 | 1 << 18, 4096 | 1 << 14, 8192  # linux/mount.h; the first two with MS_REC
_MS_READ = 1 | 2 | 32 | 4096  # MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND
_DEVICES = ("dev/null", "dev/urandom")
_TOPS = ("/usr", "/lib", "/lib64", "/bin", "/sbin")
_KEPT = (6, 7, 10, 12, 13)  # SETGID, SETUID, NET_BIND_SERVICE, NET_ADMIN, NET_RAW: what dnsmasq insists on while it is root
_KEEPCAPS, _SECCOMP, _BOUNDING_DROP, _NO_NEW_PRIVS = 8, 22, 24, 38  # PR_ of linux/prctl.h
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_DENIED = "ptrace unshare setns mount bpf keyctl add_key request_key perf_event_open process_vm_readv process_vm_writev userfaultfd io_uring_setup"
_CALLS = {  # by machine: AUDIT_ARCH of linux/audit.h; the numbers of capset, prctl, clone, socket, and of what is denied, in its order
    "x86_64": (0xC000003E, 126, 157, 56, 41, (101, 272, 308, 165, 321, 250, 248, 249, 298, 310, 311, 323, 425)),
    "aarch64": (0xC00000B7, 91, 167, 220, 198, (117, 97, 268, 40, 280, 219, 217, 218, 241, 270, 271, 282, 425)),
}


def start_confined(argv: Sequence[str], files: Iterable[tuple[str, str]], root: str, ready: bytes, hint: str) -> bytes:
    """Start a program that stays, with these files (path, text) in its own root, which is mounted at `root`; wait until it says `ready`.

    Returns all that it has said; NodeError with what it said when it ends instead.
    """
    hears, says = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            die_with_parent()
            require("unshare", LIBC.unshare(_NEW))
            _make_root(root, files)
            first = os.fork()
            if first == 0:  # of its namespace
                die_with_parent()  # until it gives root up: a change of rights takes that back
                _become(argv, says)
            os.waitpid(first, 0)
        except OSError as error:
            os.write(says, str(error).encode())
        finally:
            os._exit(0)
    os.close(says)
    said = b""
    with open(hears, "rb", buffering=0) as stream:
        while ready not in said and len(said) < 1 << 16 and (more := stream.read(4096)):
            said += more
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if ready not in said:
        raise NodeError(f"{argv[0]} failed on {os.uname().nodename}: {said.decode(errors='replace').strip()}", hint=hint)
    return said


def _make_root(root: str, files: Iterable[tuple[str, str]]) -> None:
    """Give this process, which has mounts of its own, a root in memory with the host's programs and libraries, and nothing else of it."""
    mount("none", "/", _MS_PRIVATE)
    mount("none", root, 0, "tmpfs", "mode=755,size=16m")
    os.chdir(root)
    for top in _TOPS:
        if os.path.islink(top):
            os.symlink(os.readlink(top), top[1:])
        elif os.path.isdir(top):
            os.mkdir(top[1:])
            mount(top, top[1:], _MS_BIND)
            mount("none", top[1:], _MS_READ)
    for path, text in (*files, *((device, "") for device in _DEVICES)):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).write_text(text)
    for device in _DEVICES:
        mount(f"/{device}", device, _MS_BIND)
    mount(".", "/", _MS_MOVE)  # where the root is the kernel's own (initramfs), pivot_root(2) is not possible
    os.chroot(".")
    os.chdir("/")


def _become(argv: Sequence[str], says: int) -> None:
    """Run the program with an end of a pipe as its output, and without whatever could lead out of its namespaces."""
    os.setsid()
    for number, fd in enumerate((os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), says, says)):
        os.dup2(fd, number)
    for capability in set(range(64)) - {*_KEPT}:
        LIBC.prctl(_BOUNDING_DROP, capability, 0, 0, 0)  # EINVAL for those that this kernel does not have
    require("prctl", LIBC.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    code = ctypes.create_string_buffer(_plan_filter(*_CALLS[os.uname().machine]))
    require("seccomp", LIBC.prctl(_SECCOMP, 2, struct.pack("@HP", len(code) // 8, ctypes.addressof(code)), 0, 0))
    os.execvpe(argv[0], list(argv), {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"})


def _plan_filter(arch: int, capset: int, prctl: int, clone: int, socket: int, denied: Sequence[int]) -> bytes:
    """Return a filter (seccomp(2)): who gives root up keeps no capability, since nothing is done of what asks for that."""
    load, equal, above, some, give = 0x20, 0x15, 0x35, 0x45, 0x06  # LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, JMP|JSET|K, RET|K of linux/bpf_common.h
    allow, nothing, refuse, unknown, kill = ((give, 0, 0, result) for result in (0x7FFF0000, 0x50000, 0x50001, 0x50026, 0x80000000))

    def on(number: int, *block: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
        return [(equal, 0, len(block), number), *block]

    first = (load, 0, 0, 16)  # the lower half of the call's first argument, behind number, machine and address
    families = [(equal, len(_FAMILIES) - place, 0, family) for place, family in enumerate(_FAMILIES)]
    program = [(load, 0, 0, 4), (equal, 1, 0, arch), kill, (load, 0, 0, 0), (above, 0, 1, 0x40000000), refuse]  # x32
    program += on(capset, nothing) + on(prctl, first, (equal, 0, 1, _KEEPCAPS), nothing, allow) + on(435, unknown)  # clone3
    program += on(clone, first, (some, 0, 1, _ANY_NEW), refuse, allow) + on(socket, first, *families, refuse, allow)
    program += [step for number in denied for step in on(number, refuse)]
    return b"".join(struct.pack("=HBBI", *step) for step in (*program, allow))

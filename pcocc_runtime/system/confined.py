"""A server that strangers talk to, such as dnsmasq: it binds its ports as root, and then can reach nothing of the host.

It starts as root in the caller's network namespace, in other namespaces of its own, and sees only programs,
libraries and its configuration. When it gives up root for its own uid, it keeps no capability, whatever it asks
for, and never gets one again.
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
_MS_PRIVATE, _MS_BIND, _MS_MOVE = 1 << 14 | 1 << 18, 4096 | 1 << 14, 8192  # linux/mount.h; the first two with MS_REC
_MS_READ = 1 | 2 | 32 | 4096  # MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND
_DEVICES = ("dev/null", "dev/urandom")
_TOPS = ("/usr", "/lib", "/lib64", "/bin", "/sbin")
_KEPT = (6, 7, 10, 12, 13)  # SETGID, SETUID, NET_BIND_SERVICE, NET_ADMIN, NET_RAW: dnsmasq insists on them
_SECCOMP, _BOUNDING_DROP, _NO_NEW_PRIVS = 22, 24, 38  # PR_ of linux/prctl.h


def start_confined(
    argv: Sequence[str], files: Iterable[tuple[str, str]], code: bytes, root: str, ready: bytes, hint: str
) -> bytes:
    """Start a program that stays, its calls filtered by `code` (seccomp(2)), these files (path, text) in its root.

    Returns what it has said once it says `ready`; NodeError with that when it ends instead.
    """
    hears, says = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            die_with_parent()
            require("unshare", LIBC.unshare(_NEW))
            _make_root(root, files)
            first = os.fork()
            if first == 0:  # the first process of the new namespace
                die_with_parent()  # until it gives root up: a change of rights cancels this
                _become(argv, code, says)
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
        text = said.decode(errors="replace").strip()
        raise NodeError(f"{argv[0]} failed on {os.uname().nodename}: {text}", hint=hint)
    return said


def _make_root(root: str, files: Iterable[tuple[str, str]]) -> None:
    """Give this process, which has mounts of its own, a root in memory with no more than programs and libraries."""
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


def _become(argv: Sequence[str], code: bytes, says: int) -> None:
    """Run the program with the pipe `says` as its output, and without any way out of its namespaces."""
    os.setsid()
    for number, fd in enumerate((os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), says, says)):
        os.dup2(fd, number)
    for capability in set(range(64)) - {*_KEPT}:
        LIBC.prctl(_BOUNDING_DROP, capability, 0, 0, 0)  # EINVAL for those that this kernel does not have
    require("prctl", LIBC.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    held = ctypes.create_string_buffer(code)
    require("seccomp", LIBC.prctl(_SECCOMP, 2, struct.pack("@HP", len(code) // 8, ctypes.addressof(held)), 0, 0))
    os.execvpe(argv[0], list(argv), {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"})

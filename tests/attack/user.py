"""Runs attacks as an ordinary user of this machine."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import traceback
from collections.abc import Callable
from pathlib import Path

ALICE = 2_000_000 + 2 * os.getpid()  # uids and gids that no account has, and no other run of the tests
BOB = ALICE + 1
PTRACE_ATTACH = 16  # linux/ptrace.h
_CLONE_NEWNS = 0x00020000  # linux/sched.h
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 1 << 14, 1 << 18  # sys/mount.h
_LIBC = ctypes.CDLL(None, use_errno=True)


def as_user(uid: int, attack: Callable[[], object]) -> bool:
    """Run an attack in a process of a user's; return True unless it failed with an OSError."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            attack()
            status = 0
        except OSError:
            status = 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1), "the attack itself is wrong"
    return status == 0


def plant(folder: Path, attack: Callable[[], object]) -> None:
    """Have Alice do something in her job's directory, 12."""

    def inside() -> None:
        os.chdir(folder / "12")
        attack()

    assert as_user(ALICE, inside)


def trace(pid: int) -> None:
    """Attach to a process as a debugger does; OSError when the kernel refuses."""
    if _LIBC.ptrace(PTRACE_ATTACH, pid, None, None):
        raise OSError(ctypes.get_errno(), "ptrace")


def read_memory(pid: int) -> None:
    """Open a process's memory; OSError when the kernel refuses."""
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))


def started(run: Callable[[], object]) -> int:
    """Fork a process that does something and then waits to be killed; return its number once it has done that."""
    hears, tells = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run()
            os.write(tells, b"!")
            os.close(hears)
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(tells)
    try:
        assert os.read(hears, 1) == b"!"
    finally:
        os.close(hears)
    return child


def apart(scenario: Callable[[], None]) -> None:
    """Run a scenario of root's in a process with mounts of its own; an assertion that fails there fails here."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert _LIBC.unshare(_CLONE_NEWNS) == 0 and mount("none", "/", "", _MS_REC | _MS_PRIVATE) is None
            scenario()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "see the traceback of the process"


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount something; OSError when the kernel refuses."""
    words = [word.encode() for word in (source, target, kind)]
    if _LIBC.mount(*words, flags, options.encode()):
        raise OSError(ctypes.get_errno(), f"mount {target}")


class Fuse:
    """A user's file system, as fusermount(1) mounts it, whose program answers nothing once it is mounted.

    Whoever asks it for anything hangs, and with `reads` cannot even be killed (fs/fuse/dev.c: an answer is on its way).
    """

    def __init__(self, target: str, uid: int) -> None:
        self.fd = os.open("/dev/fuse", os.O_RDWR)
        mount("fuse", target, "fuse", _MS_NOSUID | _MS_NODEV, f"fd={self.fd},rootmode=40000,user_id={uid},group_id={uid}")
        unique = struct.unpack_from("=IIQ", os.read(self.fd, 1 << 17))[2]
        body = struct.pack("=IIIIHHIIHHI7I", 7, 31, 1 << 16, 0, 12, 9, 1 << 12, 1, 0, 0, 0, *[0] * 7)  # struct fuse_init_out
        os.write(self.fd, struct.pack("=IiQ", 16 + len(body), 0, unique) + body)

    def swallow(self) -> None:
        """Read a request and never answer it: from now on the process that asked cannot be killed."""
        os.read(self.fd, 1 << 17)

    def close(self) -> None:
        """End the program: processes that hang can go on."""
        os.close(self.fd)

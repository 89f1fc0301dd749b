"""virtiofsd as an ordinary user: started confined, connected before QEMU exists, gone when its connection is.

The daemon of QEMU 7 expects to be root, and to change to the identity of the guest's user who asks. Here it runs
in a user namespace in which only the job's user exists: it has all capabilities there and none outside. A
seccomp filter makes its changes of identity do nothing: whoever asks in the guest, the host sees the job's user,
with that user's groups. It has no network, and a mount namespace of its own, where a read-only export is
mounted read-only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Sequence

from pcocc_runtime.errors import NodeError
from pcocc_runtime.qemu.descriptors import parse_vhost_user
from pcocc_runtime.qemu.virtiofsd import plan_virtiofsd_argv
from pcocc_runtime.system import children, qemu_descriptors
from pcocc_runtime.system.libc import LIBC, mount, require

_HINT = (
    "install virtiofsd on the node (Debian's package virtiofsd; on Debian 12 qemu-system-common),"
    " or export with type 9p"
)
# linux/sched.h
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = 0x20000, 0x8000000, 0x10000000, 0x40000000
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 0x80000  # linux/mount.h
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 38, 22, 47, 2  # linux/prctl.h
# CAP_LAST_CAP + 1 of Linux 5.9 and later; a kernel with fewer refuses the others, which is no loss
_CAPABILITIES = 41
# x86-64: setuid setgid setreuid setregid setgroups setresuid setresgid
_ID_CALLS = (105, 106, 113, 114, 116, 117, 119)


def find_program() -> str:
    """Return the path of virtiofsd; NodeError when it is not installed."""
    for one in map(parse_vhost_user, qemu_descriptors.read_descriptors("vhost-user")):
        if one is not None and one.kind == "fs" and os.access(one.binary, os.X_OK):
            return one.binary
    raise NodeError(f"virtiofsd is not installed on {os.uname().nodename}", _HINT)


def read_capabilities(program: str) -> str:
    """Return what a virtiofsd says that it can do, an empty text if it says nothing."""
    argv = [program, "--print-capabilities"]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout


def start_server(program: str, source: str, readonly: bool, base: str, log: str) -> int:
    """Start virtiofsd for a directory and return the descriptor of a connection to it.

    `log` is the file it logs to; a guest can make it log.
    """
    listener = socket.socket(socket.AF_UNIX)
    client = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(f"{base}.sock")
        listener.listen(1)
        client.connect(f"{base}.sock")
        os.unlink(f"{base}.sock")
        argv = plan_virtiofsd_argv(program, source, listener.fileno(), read_capabilities(program))
        _spawn(argv, listener.fileno(), source, readonly, log)
    except BaseException:  # whatever it is, it is raised again
        client.close()
        raise
    finally:
        listener.close()
    return client.detach()


def _spawn(argv: Sequence[str], listener: int, source: str, readonly: bool, log: str) -> None:
    """Start a grandchild; an error before its exec comes back through a pipe, which the exec closes."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            children.keep_only({listener, writer})
            os.set_inheritable(writer, False)
            if os.fork() == 0:
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
                os.dup2(2, 1)
                _confine(source, readonly)
                # a guest that powers off still writes
                signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
                os.execve(argv[0], list(argv), {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
        except OSError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(127)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, "rb") as stream:
        problem = stream.read().decode(errors="replace")
    if problem:
        raise NodeError(
            f"virtiofsd cannot be started on {os.uname().nodename}: {problem}",
            "it needs unprivileged user namespaces (sysctl user.max_user_namespaces); type 9p needs none",
        )


def _confine(source: str, readonly: bool) -> None:
    uid, gid = os.getuid(), os.getgid()
    os.umask(0)
    require("unshare", LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as stream:
            stream.write(text)
    mount("none", "/", _MS_REC | _MS_SLAVE)
    if readonly:
        mount(source, source, _MS_BIND | _MS_REC)
        attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
        require(
            f"mount {source} read-only",
            LIBC.syscall(
                _SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(source), _AT_RECURSIVE, attributes, len(attributes)
            ),
        )
    _keep_capabilities()
    _ignore_identity_changes()


def _keep_capabilities() -> None:
    """Keep the namespace's capabilities over the exec, which takes them from everybody but uid 0."""
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    data = ctypes.create_string_buffer(24)
    require("capget", LIBC.capget(header, data))
    low = struct.unpack("=IIIIII", data.raw)
    require(
        "capset", LIBC.capset(header, struct.pack("=IIIIII", low[0], low[1], low[1], low[3], low[4], low[4]))
    )
    for capability in range(_CAPABILITIES):
        LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, ctypes.c_ulong(capability), 0, 0)


def _ignore_identity_changes() -> None:
    """Have the kernel answer 0 to calls that change ids, and do nothing (seccomp(2), SECCOMP_RET_ERRNO with 0)."""
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    count = len(_ID_CALLS)
    # other ABIs pass
    program = [(load, 0, 0, 4), (equal, 1, 0, 0xC000003E), (give, 0, 0, 0x7FFF0000), (load, 0, 0, 0)]
    program += [(equal, count - index, 0, number) for index, number in enumerate(_ID_CALLS)]
    program += [(give, 0, 0, 0x7FFF0000), (give, 0, 0, 0x00050000)]  # ALLOW, ERRNO 0
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    filter_ = struct.pack("@HP", len(program), ctypes.addressof(code))
    require("prctl", LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    require("seccomp", LIBC.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), filter_, 0, 0))

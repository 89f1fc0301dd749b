"""The operation `@nc`: the task's input and output become a connection to a TCP port of the VM."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Sequence

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.steps.reaching import AttachError, StepVm, job_directory
from pcocc_runtime.steps.session import read_cluster

CONNECT_SECONDS = 10.0
_PIECE = 1 << 16
_LOOK_SECONDS = 1.0  # between two looks whether the VM has ended: its end does not close connections


def check_words(words: Sequence[str]) -> int:
    """Return the port; RequestError when it is not a port, or when the step has tasks for several VMs."""
    text = words[0] if len(words) == 1 else ""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise RequestError(
            "@nc takes the number of a port, 1 to 65535", "this is what 'pcocc nc vmN PORT' runs"
        )
    if int(os.environ.get("SLURM_STEP_NUM_TASKS") or "1") > 1:
        raise RequestError("a connection is to one VM", "name one: vm0")
    return int(text)


def operate(_job: int, name: str, port: int) -> int:
    """Connect, and pass on bytes until the VM has closed its side."""
    try:
        vm = StepVm(name, read_cluster(name), job_directory())
    except AttachError as error:
        os.write(2, f"{error}\n".encode())
        return 1

    def raise_if_ended() -> None:
        if (reason := vm.read_end()) is not None or not os.path.isdir(vm.job_directory):
            raise NodeError(f"{name} on {vm.node} has ended" + (f": {reason}" if reason else ""))

    with connect_to_port(vm, port) as connection:
        carry(connection, raise_if_ended)
    return 0


def carry(connection: socket.socket, raise_if_ended: Callable[[], None]) -> None:
    """Pass on bytes between the task's streams and a connection until its other side closes it."""
    threading.Thread(target=pass_on, args=(connection,), daemon=True).start()
    while True:
        if not select.select([connection], [], [], _LOOK_SECONDS)[0]:
            raise_if_ended()
            continue
        try:
            data = connection.recv(_PIECE)
        except ConnectionResetError:
            raise NodeError("the VM has broken the connection") from None
        if not data:
            return
        write_all(1, data)


def connect_to_port(vm: StepVm, port: int) -> socket.socket:
    """Return a connection to a port of the VM; NodeError says why there is none."""
    where = f"{vm.name} on {vm.node}"
    if (reason := vm.read_end()) is not None:
        raise NodeError(f"{where} has ended: {reason}", "'pcocc ps -l' lists the VMs that run")
    try:
        connection = socket.create_connection((vm.address, port), timeout=CONNECT_SECONDS)
    except ConnectionRefusedError:
        raise NodeError(f"nothing listens on port {port} of {where}") from None
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise NodeError(
            f"port {port} of {where} cannot be reached: {why}", "'pcocc ps -l' says whether it still boots"
        ) from None
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def pass_on(connection: socket.socket) -> None:
    """Pass the task's input on to a connection until it ends, then close that side."""
    try:
        while data := os.read(0, _PIECE):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side has closed it, which `carry` reads


def write_all(fd: int, data: bytes) -> None:
    """Write all of the bytes."""
    while data:
        data = data[os.write(fd, data) :]

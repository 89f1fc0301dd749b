"""Has a guest put aside, during a save, what identifies its VM; over the ssh connection that its keeper holds."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Iterator, Sequence

from pcocc_runtime.documents.members import MEMBERS_FILE, decode_members
from pcocc_runtime.documents.reach import address_of
from pcocc_runtime.documents.vm_state import DONE, UP, task_token
from pcocc_runtime.errors import NodeError, one_line
from pcocc_runtime.guest.clean import CLEAN_ARCHIVE, LEFT, render_clean, render_restore
from pcocc_runtime.guest.ssh import ssh_argv
from pcocc_runtime.progress import Note
from pcocc_runtime.save.moment import SavedVm
from pcocc_runtime.system import process

_UP_SECONDS = 30.0  # the connection was opened when the guest booted, but may have been lost a moment ago
_SECONDS = 120.0  # files are overwritten and free blocks discarded, perhaps by an emulated guest
_OVER_IT = ("ControlMaster=no", "ProxyCommand=false", "LogLevel=ERROR")
CLEANED = f"the image has no ssh keys of the host, no machine-id and no state of cloud-init; it has {LEFT}"
KEPT = (
    "the image has what identifies the VM: ssh keys of the host, machine-id and cloud-init's state; --clean"
    " leaves these out"
)


@contextlib.contextmanager
def put_aside(vm: SavedVm, note: Note) -> Iterator[None]:
    """Have it put aside during the block, and restored however that ends; NodeError when the guest cannot do that."""
    with _shared(vm) as argv:
        try:
            _run(argv, render_clean(), f"{vm.name} cannot put aside what identifies it, so nothing is saved")
            yield
        finally:
            try:
                _run(argv, render_restore(), "")
            except NodeError as error:
                left = (
                    f"{vm.name} has not restored what was put aside for the save; do it there, as root: tar -C /"
                    f" -xpf {CLEAN_ARCHIVE}"
                )
                note(f"{left} ({one_line(str(error))})")


@contextlib.contextmanager
def _shared(vm: SavedVm) -> Iterator[list[str]]:
    """Yield the ssh command that uses the keeper's connection, once that is open."""
    rank = int(vm.name[2:])
    try:
        members = decode_members((vm.directory.parent / MEMBERS_FILE).read_text())
    except (OSError, ValueError) as error:
        raise NodeError(f"{vm.name} cannot be reached: {error}") from None
    address, user = address_of(members.networks, rank), members.find_user(rank)
    if address is None or user is None:
        raise NodeError(
            f"{vm.name} has no L3 network, so its guest cannot be asked to put anything aside",
            "leave out --clean",
        )
    token = task_token(*(os.environ[f"SLURM_{name}"] for name in ("JOB_ID", "STEP_ID", "PROCID")))
    with socket.socket(socket.AF_UNIX) as keeper:
        try:
            keeper.settimeout(_UP_SECONDS)
            keeper.connect(str(vm.directory / "attach"))
            keeper.sendall(token.encode() + b"\n")
            if not keeper.recv(64).startswith(UP):
                raise NodeError(f"{vm.name} has ended")
        except OSError as error:
            raise NodeError(
                f"{vm.name} does not let its user in: {error}",
                "try again when it answers, or leave out --clean",
            ) from None
        yield ssh_argv(
            user,
            address,
            str(vm.directory.parent / "key"),
            "/dev/stderr",
            str(vm.directory / "ssh"),
            _OVER_IT,
            (),
        )
        with contextlib.suppress(OSError):
            keeper.sendall(DONE)


def _run(argv: Sequence[str], command: Sequence[str], problem: str) -> None:
    hint = "its user must be able to become root there: sudo -n true; and it needs tar"
    try:
        process.run([*argv, shlex.join(command)], timeout=_SECONDS, hint=hint)
    except NodeError as error:
        raise NodeError(problem or str(error), hint) from None

"""How a task reaches its VM: where the VM is, whether it still runs, and how to log in once it answers."""

from __future__ import annotations

import os
import select
import socket
import time

from pcocc_runtime.documents import wire
from pcocc_runtime.documents.members import MEMBERS_FILE
from pcocc_runtime.documents.reach import address_of
from pcocc_runtime.documents.record import TYPE_CHECKING
from pcocc_runtime.documents.vm_state import (
    DONE,
    ENDED,
    STATE_FILE,
    UP,
    decode_state,
    explain_end,
    task_token,
)

if TYPE_CHECKING:
    from pcocc_runtime.documents.members import Members
    from pcocc_runtime.steps.signals import Signals

LATER_SECONDS = 20.0
LAST_SECONDS = 5.0
_MAX_COMPLAINT = 4096  # bytes


def read_complaint(path: str) -> str:
    """Return the end of what an ssh has written, without characters that move a cursor: some are the guest's."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _MAX_COMPLAINT))
            text = stream.read(_MAX_COMPLAINT).decode(errors="replace").replace("\r", "")
    except OSError:
        return ""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text).strip()


class AttachError(Exception):
    """The VM could not be reached; the text has the lines for the user."""


def cut_off(vm: str) -> AttachError:
    """Return the error for a job that has nothing left on this node."""
    return AttachError(
        f"pcocc: error: {vm} cannot be reached from {os.environ.get('SLURMD_NODENAME', 'this node')}: the"
        " job's VMs there have ended\nhint: the srun that booted the VMs has said why, and 'pcocc ps -l'"
        " says it, too; start the step on the VMs that are left, or a new job"
    )


def job_directory() -> str:
    """Return the directory with what this node knows of the step's job."""
    return f"{wire.RUN_PATH}/{os.environ['SLURM_JOB_ID']}"


class StepVm:
    """A VM as a task of a step knows it; AttachError when no network leads to it."""

    def __init__(self, name: str, members: Members, job_directory: str) -> None:
        self.name, self.members, self.job_directory = name, members, job_directory
        self.rank = int(name[2:])
        address, user = address_of(members.networks, self.rank), members.find_user(self.rank)
        if address is None:
            raise AttachError(
                f"pcocc: error: {name} has no L3 network, which commands need to reach it\n"
                "hint: give its template a resource set with an Ethernet network of network-layer L3"
            )
        if user is None:
            raise AttachError(f"pcocc: error: there is no {name}")
        self.address, self.user = address, user
        self.node = members.find_node(self.rank) or "?"
        self.directory = f"{job_directory}/{name}"
        self.token = task_token(*(os.environ[f"SLURM_{name}"] for name in ("JOB_ID", "STEP_ID", "PROCID")))

    def answers(self) -> bool:
        """Tell whether its sshd answers."""
        try:
            with socket.create_connection((self.address, 22), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def read_end(self) -> str | None:
        """Return why it has ended, None when nobody has written that it has."""
        try:
            with open(f"{self.directory}/{STATE_FILE}") as stream:
                found = decode_state(stream.read())
        except (OSError, ValueError):
            return None
        if found.state == "off":
            raise AttachError(
                f"pcocc: error: {self.name} on {self.node} is powered off\n"
                f"hint: 'pcocc power on {self.name}' boots it again"
            )
        return explain_end(found.reason) if found.state == "ended" else None

    def patience(self) -> float:
        """Return how many seconds the VM may stay silent: the rest of its time to boot, but at least a few."""
        try:
            age = time.time() - os.stat(f"{self.job_directory}/{MEMBERS_FILE}").st_mtime
        except FileNotFoundError:
            raise cut_off(self.name) from None
        return max(LATER_SECONDS, self.members.boot_timeout + LATER_SECONDS - age)


class KeeperLine:
    """A task's connection to its VM's keeper: when the task ends, what it left in the guest is ended, too."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.heard = b""

    def speaks(self, seconds: float) -> bool:
        """Tell whether the keeper says something, or ends, within so many seconds."""
        return bool(select.select([self.connection], [], [], seconds)[0])

    def is_up(self) -> bool:
        """Tell whether the keeper's first word is UP: its connection to the guest is open."""
        try:
            self.heard = self.connection.recv(64)
        except ConnectionResetError:
            pass  # it was killed before it read our word
        return UP in self.heard

    def find_end(self) -> str | None:
        """Return why the VM has ended, if its keeper has said so before the job was removed from this node."""
        try:
            self.heard += self.connection.recv(64, socket.MSG_DONTWAIT)
        except OSError:
            pass  # nothing yet
        _, found, reason = self.heard.partition(ENDED)
        return explain_end(reason.partition(b"\n")[0].decode()) if found else None

    def tell_done(self) -> None:
        """Tell the keeper that nothing is left to end: the guest's shell has ended what the command left."""
        try:
            self.connection.send(DONE)
        except OSError:
            pass


class SharedLogin:
    """A login over the connection that the VM's keeper holds; the keeper ends what the task leaves in the guest."""

    guarded = False

    def __init__(self, line: KeeperLine, control: str) -> None:
        self.line, self.control = line, control

    def tell_done(self) -> None:
        """Let the keeper forget the task."""
        self.line.tell_done()


class OwnLogin:
    """A login over the task's own connection, as there is no keeper; a guard in the guest watches for its end."""

    guarded = True
    control = "none"

    def tell_done(self) -> None:
        """Do nothing: no other process has to be told."""


if TYPE_CHECKING:
    Login = SharedLogin | OwnLogin


def pause_after(seconds: float) -> float:
    """Return how long to wait before one looks again for what has not come for so many seconds: 2 % longer at most.

    On a busy node each look takes from those that are waited for.
    """
    return min(max(seconds / 50, 0.05), 1)


class Approach:
    """The way to a VM; AttachError when the VM has ended, or stays silent for too long."""

    def __init__(self, vm: StepVm, signals: Signals) -> None:
        self.vm, self.signals = vm, signals
        self.limit = vm.patience()
        self.deadline = time.monotonic() + self.limit
        self.line = meet_keeper(vm)  # None: nobody will tell us that the VM has ended

    def find_login(self) -> Login:
        """Wait until the VM answers, and return how to log in."""
        if self.line:
            if self._await_keeper(self.line):
                return SharedLogin(self.line, f"{self.vm.directory}/ssh")
            self.line.connection.close()
            self.line = None
        elif os.environ.get(wire.ENV_PATIENCE) != "0":
            # it may still boot; the plugin knows when all VMs have answered
            self._await_sshd()
        return OwnLogin()

    def _await_keeper(self, line: KeeperLine) -> bool:
        """Wait for the connection to the guest that the VM's steps share; False when it will not come."""
        while not line.speaks(0.5):
            self.raise_if_over(self._keepers_complaint() or "nothing listens on its ssh port")
        up = line.is_up()
        if not up:  # the VM has ended, or the keeper was killed, alone or with it
            self.raise_if_gone()
        return up

    def _keepers_complaint(self) -> str:
        return read_complaint(f"{self.vm.directory}/ssh.log").rpartition("\n")[2]

    def _await_sshd(self) -> None:
        begin = time.monotonic()
        while not self.vm.answers():
            self.raise_if_over("nothing listens on its ssh port")
            time.sleep(pause_after(time.monotonic() - begin))  # it is booting: no event tells when it listens

    def find_end(self) -> str | None:
        """Return why the VM has ended, None when that is not known."""
        return self.vm.read_end() or (self.line.find_end() if self.line else None)

    def raise_if_gone(self) -> None:
        """Raise unless the VM answers; the reason for its end is known a moment after its connections have ended."""
        last = time.monotonic() + LAST_SECONDS
        while self.find_end() is not None or not self.vm.answers():
            self.raise_if_ended()
            if time.monotonic() > last:
                raise AttachError(
                    f"pcocc: error: {self.vm.name} on {self.vm.node} closed the connection and no longer"
                    " answers"
                )
            time.sleep(0.1)  # the keeper writes a file, which nothing announces

    def raise_if_over(self, why: str) -> None:
        """Raise when the command can no longer begin; `why` says what has kept it from beginning."""
        if self.signals.have_ended():
            raise AttachError(f"pcocc: {self.vm.name}: a signal has ended the task before its command began")
        self.raise_if_ended()
        if time.monotonic() > self.deadline:
            where = f"{self.vm.name} on {self.vm.node}"
            raise AttachError(
                f"pcocc: error: {where} did not let its user in within {self.limit:.0f} s: {why}"
            )

    def raise_if_ended(self) -> None:
        """Raise when the VM, or all of the job on this node, has ended."""
        ended = self.find_end()
        if ended:
            raise AttachError(f"pcocc: error: {self.vm.name} on {self.vm.node} has ended: {ended}")
        if not os.path.exists(self.vm.job_directory):
            raise cut_off(self.vm.name)


def meet_keeper(vm: StepVm) -> KeeperLine | None:
    """Tell the VM's keeper about this task, so that it ends what the task leaves; None: there is no keeper."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"{vm.directory}/attach")
        connection.send(vm.token.encode() + b"\n")
    except OSError:
        connection.close()
        return None
    return KeeperLine(connection)

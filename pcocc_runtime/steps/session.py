"""The task of a VM step: runs its command in one VM through an OpenSSH client, and stands for it as the task.

The plugin starts it in place of the task's command, inside the job's network namespace. It imports little, because
every `srun --pcocc-vm` waits for that. How the VM is reached is in steps/reaching.py, signals in steps/signals.py.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
import time

from pcocc_runtime.documents import wire, wire_steps
from pcocc_runtime.documents.batch_environment import decode_batch_environment
from pcocc_runtime.documents.members import MEMBERS_FILE, decode_members
from pcocc_runtime.documents.reach import render_ports
from pcocc_runtime.documents.record import TYPE_CHECKING
from pcocc_runtime.documents.vm_state import STORED_FIRST_FILE
from pcocc_runtime.guest.environment import find_changes, plan_batch_environment, plan_environment
from pcocc_runtime.guest.script import render_script, render_signal
from pcocc_runtime.guest.ssh import ssh_argv
from pcocc_runtime.steps.environment import take_environment_before
from pcocc_runtime.steps.reaching import (
    Approach,
    AttachError,
    StepVm,
    cut_off,
    job_directory,
    pause_after,
    read_complaint,
)
from pcocc_runtime.steps.signals import Signals, ignore
from pcocc_runtime.system.used import mark_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcocc_runtime.documents.batch_environment import BatchEnvironment
    from pcocc_runtime.documents.members import Members
    from pcocc_runtime.guest.environment import GuestEnvironment
    from pcocc_runtime.steps.reaching import Login

__all__ = ["AttachError", "Session", "find_members", "read_cluster"]

BOOT_SECONDS = 300.0
# how long SIGTERM waits for the keeper of a VM that is stored first, which hears of the end within half a second and
# has the shared connection stand still: a command that ended upon the signal would end its job's script before
STORED_FIRST_SECONDS = 3.0
LONGEST_COMMAND = 7000  # bytes; dropbear refuses command lines over 9000
# what ssh says before a command could begin, and only then: trying again cannot run it twice
_NOT_YET = (
    "Permission denied", "port 22", "kex_exchange_identification", "banner exchange", "System is booting",
)

# not errors: ssh has stored the host key; the shared connection took no further session, so ssh opened its own
_NO_COMPLAINTS = ("Warning: Permanently added", "mux_client_request_session: ", "ControlSocket ")


def run_command(argv: Sequence[str], script: bool = False) -> int:
    """Run a command, or this node's script, in the VM that the environment names; return its exit status."""
    vm = os.environ.get(wire.ENV_VM_NAME, "")
    try:
        return Session(vm, read_cluster(vm)).run(argv, script)
    except AttachError as error:
        print(error, file=sys.stderr)
        return 1


def read_cluster(vm: str) -> Members:
    """Return what this node's launchers wrote about the cluster; waits for it while the cluster boots."""
    directory = job_directory()
    begin = time.monotonic()
    try:
        while (members := find_members(directory)) is None:
            if (waited := time.monotonic() - begin) > BOOT_SECONDS or not _is_set_up(directory):
                raise cut_off(vm)
            time.sleep(pause_after(waited))  # another srun of the job is booting it; nothing announces the file
    except ValueError as error:
        raise AttachError(
            f"pcocc: error: {vm} cannot be reached: {error}\nhint: check that all nodes have the same version"
            " of pcocc"
        ) from None
    return members


def find_members(directory: str) -> Members | None:
    """Return what launchers wrote about a job's cluster, None before that; ValueError when it cannot be read."""
    try:
        with open(f"{directory}/{MEMBERS_FILE}") as stream:
            return decode_members(stream.read())
    except (FileNotFoundError, PermissionError):
        # root makes the directory, and gives it to the user when everything else is there
        return None


def _is_set_up(path: str) -> bool:
    """Tell whether this node has, or is just making, its part of the job's virtual cluster."""
    return os.path.isdir(path) or os.path.exists(f"{wire.NETNS_PATH}{os.environ['SLURM_JOB_ID']}")


class Session:
    """One command in one VM."""

    def __init__(self, vm: str, members: Members) -> None:
        self.vm = StepVm(vm, members, job_directory())

    def run(self, argv: Sequence[str], script: bool = False) -> int:
        """Wait until the VM answers, run the command (or this node's script), return its exit status."""
        signals = Signals()
        reach = Approach(self.vm, signals)
        return GuestCommand(self.vm, reach, reach.find_login(), signals).run(argv, script)


class GuestCommand:
    """A command in a VM that answers; it may take several ssh processes, one after the other."""

    def __init__(self, vm: StepVm, reach: Approach, login: Login, signals: Signals) -> None:
        self.vm, self.reach, self.login, self.signals = vm, reach, login, signals
        self.log = f"{vm.job_directory}/ssh-{os.environ['SLURM_STEP_ID']}.{os.environ['SLURM_PROCID']}"

    def run(self, argv: Sequence[str], script: bool) -> int:
        """Run it, or this node's script; return its exit status. AttachError when the VM ends before."""
        mark_command(f"{self.vm.job_directory}/{self.vm.name}")
        try:
            if script:
                return self._run_script(self._script(self._stage_batch(argv), called="slurm_script"))
            if os.environ.get(wire_steps.ENV_STEP_BCAST):
                argv = self._stage_file(argv)
            return self._run_script(self._script(argv))
        finally:
            self.take_complaint()

    def _run_script(self, script: str) -> int:
        while True:
            status = self._ssh(script)
            if status < 128:
                self.login.tell_done()
            if status != 255:
                return status
            complaint = self.take_complaint()
            if any(word in complaint for word in _NOT_YET):
                self.reach.raise_if_over(complaint)
                time.sleep(0.3)  # sshd may answer before the guest lets its users log in
                continue
            self.reach.raise_if_gone()
            if not complaint:
                return status  # the command's own 255
            raise AttachError(f"pcocc: error: {self.vm.name} on {self.vm.node}: {complaint}")

    def _environment(self) -> GuestEnvironment:
        before, vm, vms = take_environment_before(), self.vm, self.vm.members.vms
        environment = plan_environment(before, os.environ, os.environ.get(wire_steps.ENV_STEP_EXPORT))
        if wire_steps.ENV_BATCH_ENVIRON in os.environ:
            script = _read_batch_environment(os.environ[wire_steps.ENV_BATCH_ENVIRON])
            changes = find_changes(before, os.environ)
            environment = plan_batch_environment(environment, script.settings, script.removed, changes)
        ours = {
            wire.ENV_VM_NAME: vm.name,
            "PCOCC_VM_RANK": str(vm.rank),
            "PCOCC_NODELIST": f"vm[0-{vms - 1}]" if vms > 1 else "vm0",
            "PCOCC_HOSTFILE": "/etc/pcocc/hostfile",
            "PCOCC_HOST_PORTS": render_ports(vm.members.ports, vm.rank, vm.node),
        }
        return environment._replace(settings={**environment.settings, **ours})

    def _script(self, argv: Sequence[str], called: str = "") -> str:
        umask = os.umask(0)
        os.umask(umask)
        environment = self._environment()
        script = render_script(
            argv, environment, os.getcwd(), umask, self.vm.token, guarded=self.login.guarded, called=called
        )
        return script if len(os.fsencode(script)) <= LONGEST_COMMAND else self._stage(script, "command")

    def _stage_batch(self, argv: Sequence[str]) -> list[str]:
        try:
            with open(argv[0], errors="surrogateescape") as stream:
                text = stream.read()
        except OSError as error:
            raise AttachError(
                f"pcocc: error: the batch script cannot be read on this node: {error}"
            ) from None
        return [self._stage(text, "slurm_script", call=False), *argv[1:]]

    def _stage(self, text: str, name: str, call: bool = True) -> str:
        """Put a text into the guest as a private file; return its path, or the words that run and delete it."""
        path = f"/tmp/pcocc-{self.vm.token}-{name}"
        text = f"rm -f {path}\n{text}" if call else text
        command = f"umask 077; rm -f {path}; cat >{path} && chmod 700 {path}"
        while self._ssh(command, _file_of(text)) != 0:
            self.reach.raise_if_over(self.take_complaint() or "the guest's /tmp cannot be written")
            time.sleep(0.3)  # as in _run_script
        return f". {path}" if call else path

    def _stage_file(self, argv: Sequence[str]) -> list[str]:
        """Copy the file that srun has put on this node (--bcast) into the guest, too; return the command."""
        path = argv[0]
        if path.endswith("/"):  # as slurmstepd completes it (slurmstepd/task.c)
            step = ".".join(os.environ[f"SLURM_{name}_ID"] for name in ("JOB", "STEP"))
            path += f"slurm_bcast_{step}_{os.environ['SLURMD_NODENAME']}"
        new = shlex.quote(f"{path}.{self.vm.token}")
        try:
            mode = os.stat(path).st_mode & 0o777
            command = (
                f"umask 077; mkdir -p {shlex.quote(os.path.dirname(path) or '.')} && "
                f"cat >{new} && chmod {mode:o} {new} && mv -f {new} {shlex.quote(path)}"
            )
            while status := self._ssh(command, os.open(path, os.O_RDONLY | os.O_CLOEXEC)):
                complaint = self.take_complaint()
                if status != 255:
                    raise AttachError(
                        f"pcocc: error: {path}, the file of --bcast, cannot be written in {self.vm.name}"
                    )
                self.reach.raise_if_over(complaint or "its connection ends at once")
                time.sleep(0.3)  # as in _run_script
        except OSError as error:
            raise AttachError(
                f"pcocc: error: the file of --bcast cannot be read on this node: {error}"
            ) from None
        return [path, *argv[1:]]

    def _ssh(self, script: str, source: int | None = None) -> int:
        """Run an ssh that reads from `source`, or the task's input; signals are passed on to the guest's command."""
        argv = self._ssh_argv(script, terminal=source is None and os.isatty(0))
        child = os.fork()
        if child == 0:
            exec_ssh(argv, source)
        if source is not None:
            os.close(source)
        return self._await(child)

    def _ssh_argv(self, script: str, terminal: bool = False) -> list[str]:
        options = (
            "ControlMaster=no",
            "LogLevel=ERROR" if terminal else "LogLevel=INFO",
            f"RequestTTY={'force' if terminal else 'no'}",
        )
        vm, key = self.vm, f"{self.vm.job_directory}/key"
        return ssh_argv(vm.user, vm.address, key, self.log, self.login.control, options, (script,))

    def _await(self, child: int) -> int:
        """Wait for the ssh process, the VM's end, and signals to pass on."""
        watched = select.poll()
        pidfd = os.pidfd_open(child)
        watched.register(pidfd, select.POLLIN)
        watched.register(self.signals.wakeup, select.POLLIN)
        try:
            while True:
                for fd, _event in watched.poll(1000):
                    if fd == pidfd:
                        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                        return status if status >= 0 else 128 - status
                    os.read(self.signals.wakeup, 64)
                self._forward()
                if self.reach.find_end() is not None:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    self.reach.raise_if_ended()
        finally:
            os.close(pidfd)

    def _forward(self) -> None:
        """Pass signals on to the guest's command."""
        for name in self.signals.take():
            child = os.fork()
            if child == 0:
                if name == "TERM" and os.path.exists(f"{self.vm.directory}/{STORED_FIRST_FILE}"):
                    time.sleep(STORED_FIRST_SECONDS)  # see there; this child has nothing else to do
                exec_ssh(self._ssh_argv(render_signal(self.vm.token, name)), os.open(os.devnull, os.O_RDONLY))

    def take_complaint(self) -> str:
        """Return what ssh has written into its log, and delete the log, for the next ssh."""
        lines = [
            line for line in read_complaint(self.log).splitlines() if not line.startswith(_NO_COMPLAINTS)
        ]
        try:
            os.unlink(self.log)
        except FileNotFoundError:
            pass
        return " ".join(lines).strip()


def _file_of(text: str) -> int:
    fd = os.memfd_create("pcocc-text")
    with open(fd, "wb", closefd=False) as stream:
        stream.write(text.encode(errors="surrogateescape"))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _read_batch_environment(text: str) -> BatchEnvironment:
    try:
        return decode_batch_environment(text)
    except ValueError as error:
        raise AttachError(f"pcocc: error: {error}") from None


def exec_ssh(argv: Sequence[str], stdin: int | None) -> None:
    """Become, in a forked child, an ssh that ignores the signals meant for the task."""
    try:
        ignore()
        if stdin is not None:
            os.dup2(stdin, 0)
        os.execvp(argv[0], list(argv))
    except OSError as error:
        os.write(2, f"pcocc: error: ssh cannot be started on this node: {error}\n".encode())
    finally:
        os._exit(127)

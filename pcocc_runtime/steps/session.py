"""The task of a VM step: runs its command in one VM through an OpenSSH client and answers for it as the task.

Started by the plugin in place of the task's command, with the job's network namespace already entered. Imports little:
what it takes is added to every `srun --pcocc-vm`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from pcocc_runtime.documents import wire
from pcocc_runtime.documents.reach import address_of, render_ports
from pcocc_runtime.documents.vm_events import DONE, ENDED, UP, explain_end, task_token
from pcocc_runtime.guest.script import render_command, render_signal, select_environment
from pcocc_runtime.guest.ssh import ssh_argv

BOOT_SECONDS = 300.0
LATER_SECONDS = 20.0
LAST_SECONDS = 5.0
LONGEST_COMMAND = 7000  # bytes; dropbear refuses command lines over 9000
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGQUIT)
# what ssh says before a command could begin, and only then: trying again cannot run it twice
_NOT_YET = ("Permission denied", "port 22", "kex_exchange_identification", "banner exchange", "System is booting")

# ssh made the job's host key known; a shared connection refused one session more, and ssh made one of its own
_NO_COMPLAINTS = ("Warning: Permanently added", "mux_client_request_session: ", "ControlSocket ")


class AttachError(Exception):
    """The VM could not be reached; the text has the lines for the user."""


def run_command(argv: Sequence[str], script: bool = False) -> int:
    """Be the task: run a command, or a script of this node's, in the VM named in the environment; return its exit status."""
    vm = os.environ.get(wire.ENV_VM_NAME, "")
    try:
        return Session(vm, read_cluster(vm)).run(argv, script)
    except AttachError as error:
        print(error, file=sys.stderr)
        return 1


def read_cluster(vm: str) -> dict[str, Any]:
    """Return what the launchers of this node wrote about the cluster, waiting for a boot that is under way."""
    path = f"{wire.RUN_DIR}/{os.environ['SLURM_JOB_ID']}"
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        try:
            with open(f"{path}/cluster.json") as stream:
                cluster: dict[str, Any] = json.load(stream)
            cluster["directory"] = path
            return cluster
        except (FileNotFoundError, ValueError):
            if time.monotonic() > deadline or not _is_set_up(path):
                raise cut_off(vm) from None
            time.sleep(0.05)  # another srun of the job is booting it; nothing announces the file


def cut_off(vm: str) -> AttachError:
    """Return what to say when nothing of the job is left on this node."""
    return AttachError(
        f"pcocc: error: {vm} cannot be reached from {os.environ.get('SLURMD_NODENAME', 'this node')}: the job's VMs there have ended\n"
        "hint: the srun that booted the VMs has told why, and 'pcocc ps -l' does; start the step on the VMs that are left, or a new job"
    )


def _is_set_up(path: str) -> bool:
    """Tell whether this node has, or is just making, its part of the job's virtual cluster."""
    return os.path.isdir(path) or os.path.exists(f"{wire.NETNS_PATH}{os.environ['SLURM_JOB_ID']}")


class Session:
    """One command in one VM."""

    def __init__(self, vm: str, cluster: dict[str, Any]) -> None:
        self.vm, self.cluster = vm, cluster
        self.rank = int(vm[2:])
        address = address_of(cluster["networks"], self.rank)
        if address is None:
            raise AttachError(
                f"pcocc: error: {vm} has no L3 network, and commands reach a VM by one\n"
                "hint: give its template a resource set with an Ethernet network of network-layer L3"
            )
        self.address = address
        self.node = next((name for name, ranks in cluster["nodes"] if self.rank in ranks), "?")
        self.directory = f"{cluster['directory']}/{vm}"
        self.token = task_token(*(os.environ[f"SLURM_{name}"] for name in ("JOB_ID", "STEP_ID", "PROCID")))
        self.log = f"{cluster['directory']}/ssh-{os.environ['SLURM_STEP_ID']}.{os.environ['SLURM_PROCID']}"
        self.signals: list[int] = []
        self.keeper: socket.socket | None = None  # open as long as the task lives; None: it looks after its processes itself
        self.heard = b""  # what the keeper has said
        self.deadline = time.monotonic() + patience(cluster)
        self.limit = self.deadline - time.monotonic()

    def run(self, argv: Sequence[str], script: bool = False) -> int:
        """Wait until the VM answers, run the command (or this node's script), return its exit status."""
        self._catch_signals()
        self.keeper = self._meet_keeper()
        if self.keeper:
            self._await_keeper(self.keeper)
        elif os.environ.get(wire.ENV_PATIENCE) != "0":  # it may still boot; the plugin knows when all VMs have answered
            self._await_sshd()
        try:
            return self._run_script(self._script(self._stage_batch(argv) if script else argv))
        finally:
            self._complaint()

    def _run_script(self, script: str) -> int:
        while True:
            status = self._ssh(script)
            if status < 128:
                self._tell_done()
            if status != 255:
                return status
            complaint = self._complaint()
            if any(word in complaint for word in _NOT_YET):
                self._raise_if_over(complaint)
                time.sleep(0.3)  # sshd may be up before the guest lets its users in
                continue
            self._raise_if_gone()
            if not complaint:
                return status  # the command's own 255
            raise AttachError(f"pcocc: error: {self.vm} on {self.node}: {complaint}")

    def _script(self, argv: Sequence[str]) -> str:
        environ = select_environment(os.environ)
        environ |= {
            wire.ENV_VM_NAME: self.vm,
            "PCOCC_VM_RANK": str(self.rank),
            "PCOCC_NODELIST": f"vm[0-{self.cluster['vms'] - 1}]" if self.cluster["vms"] > 1 else "vm0",
            "PCOCC_HOSTFILE": "/etc/pcocc/hostfile",
            "PCOCC_HOST_PORTS": render_ports(self.cluster["ports"], self.rank, self.node),
        }
        umask = os.umask(0)
        os.umask(umask)
        script = render_command(argv, environ, os.getcwd(), umask, self.token, guarded=not self.keeper)
        return script if len(os.fsencode(script)) <= LONGEST_COMMAND else self._stage(script, "command")

    def _stage_batch(self, argv: Sequence[str]) -> list[str]:
        try:
            with open(argv[0], errors="surrogateescape") as stream:
                text = stream.read()
        except OSError as error:
            raise AttachError(f"pcocc: error: the batch script cannot be read on this node: {error}") from None
        return [self._stage(text, "slurm_script", call=False), *argv[1:]]

    def _stage(self, text: str, name: str, call: bool = True) -> str:
        """Put a text into the guest as a private executable file; return its path, or the words that run and delete it."""
        path = f"/tmp/pcocc-{self.token}-{name}"
        text = f"rm -f {path}\n{text}" if call else text
        command = f"umask 077; rm -f {path}; cat >{path} && chmod 700 {path}"
        while self._ssh(command, text.encode(errors="surrogateescape")) != 0:
            self._raise_if_over(self._complaint() or "the guest's /tmp cannot be written")
            time.sleep(0.3)  # as in _run_script
        return f". {path}" if call else path

    def _meet_keeper(self) -> socket.socket | None:
        """Tell the VM's keeper about this task: when it ends, what it left in the guest is ended. None: there is no keeper."""
        keeper = socket.socket(socket.AF_UNIX)
        try:
            keeper.connect(f"{self.directory}/attach")
            keeper.send(self.token.encode() + b"\n")
        except OSError:
            keeper.close()
            return None
        return keeper

    def _tell_done(self) -> None:
        """The guest's shell came to its end, after ending what the command had left: nothing remains for the keeper."""
        try:
            if self.keeper:
                self.keeper.send(DONE)
        except OSError:
            pass

    def _await_keeper(self, keeper: socket.socket) -> None:
        """Wait until the keeper's connection to the guest stands, which the VM's steps share."""
        while not select.select([keeper], [], [], 0.5)[0]:
            self._raise_if_over(self._keepers_complaint() or "nothing listens on its ssh port")
        self.heard = keeper.recv(64)
        if UP not in self.heard:  # the VM has ended, or the keeper was killed, alone or with it
            self._raise_if_gone()
            self.keeper = None

    def _keepers_complaint(self) -> str:
        try:
            with open(f"{self.directory}/ssh.log") as stream:
                return stream.read().strip().rpartition("\n")[2]
        except OSError:
            return ""

    def _await_sshd(self) -> None:
        while not self._answers():
            self._raise_if_over("nothing listens on its ssh port")
            time.sleep(0.1)  # the guest is booting: no event tells when it listens

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.address, 22), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _raise_if_gone(self) -> None:
        """A guest that powers off closes its connections first; word of its end comes a moment later."""
        last = time.monotonic() + LAST_SECONDS
        while self._ended() is not None or not self._answers():
            self._raise_if_ended()
            if time.monotonic() > last:
                raise AttachError(f"pcocc: error: {self.vm} on {self.node} closed the connection and answers no more")
            time.sleep(0.1)  # the keeper writes a file, which nothing announces

    def _raise_if_over(self, why: str) -> None:
        if any(number in (signal.SIGTERM, signal.SIGINT) for number in self.signals):
            raise AttachError(f"pcocc: {self.vm}: ended by a signal before its command began")
        self._raise_if_ended()
        if time.monotonic() > self.deadline:
            raise AttachError(f"pcocc: error: {self.vm} on {self.node} did not let its user in within {self.limit:.0f} s: {why}")

    def _raise_if_ended(self) -> None:
        ended = self._ended()
        if ended:
            raise AttachError(f"pcocc: error: {self.vm} on {self.node} has ended: {ended}")
        if not os.path.exists(self.cluster["directory"]):
            raise cut_off(self.vm)

    def _ended(self) -> str | None:
        try:
            with open(f"{self.cluster['directory']}/{self.vm}/ended") as stream:
                return explain_end(json.load(stream)["reason"])
        except (OSError, ValueError):
            return self._last_word()

    def _last_word(self) -> str | None:
        """Return why the VM ended, when its keeper has said so before all of the job on this node went."""
        try:
            self.heard += self.keeper.recv(64, socket.MSG_DONTWAIT) if self.keeper else b""
        except OSError:
            pass  # nothing yet
        _, found, reason = self.heard.partition(ENDED)
        return explain_end(reason.partition(b"\n")[0].decode()) if found else None

    def _ssh(self, script: str, data: bytes | None = None) -> int:
        """Run one ssh; signals that arrive meanwhile go to the command in the guest."""
        stdin = None
        if data is not None:
            reader, writer = os.pipe()
            stdin = os.fdopen(writer, "wb")
        argv = self._ssh_argv(script, terminal=data is None and os.isatty(0))
        child = os.fork()
        if child == 0:
            exec_ssh(argv, reader if data is not None else None)
        if stdin is not None:
            os.close(reader)
            try:
                stdin.write(data or b"")
                stdin.close()
            except BrokenPipeError:
                pass
        return self._await(child)

    def _ssh_argv(self, script: str, terminal: bool = False) -> list[str]:
        options = (
            "ControlMaster=no",
            "LogLevel=ERROR" if terminal else "LogLevel=INFO",
            f"RequestTTY={'force' if terminal else 'no'}",
        )
        control = f"{self.directory}/ssh" if self.keeper else "none"  # the guard looks for the end of a connection
        user, key = user_of(self.cluster, self.rank), f"{self.cluster['directory']}/key"
        return ssh_argv(user, self.address, key, self.log, control, options, (script,))

    def _await(self, child: int) -> int:
        """Wait for the ssh process, the VM's end, and signals to pass on."""
        watched = select.poll()
        pidfd = os.pidfd_open(child)
        watched.register(pidfd, select.POLLIN)
        watched.register(self.wakeup, select.POLLIN)
        try:
            while True:
                for fd, _event in watched.poll(1000):
                    if fd == pidfd:
                        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                        return status if status >= 0 else 128 - status
                    os.read(self.wakeup, 64)
                self._forward()
                if self._ended() is not None:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    self._raise_if_ended()
        finally:
            os.close(pidfd)

    def _forward(self) -> None:
        while self.signals:
            name = signal.Signals(self.signals.pop(0)).name.removeprefix("SIG")
            child = os.fork()
            if child == 0:
                exec_ssh(self._ssh_argv(render_signal(self.token, name)), os.open(os.devnull, os.O_RDONLY))

    def _catch_signals(self) -> None:
        self.wakeup, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in FORWARDED:
            signal.signal(number, lambda number, _frame: self.signals.append(number))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _complaint(self) -> str:
        try:
            with open(self.log) as stream:
                lines = [line for line in stream.read().splitlines() if not line.startswith(_NO_COMPLAINTS)]
            os.unlink(self.log)
        except OSError:
            return ""
        return " ".join(lines).strip()


def user_of(cluster: dict[str, Any], rank: int) -> str:
    """Return the guest's user that commands in a VM run as."""
    for count, name in cluster["users"]:
        if rank < count:
            return str(name)
        rank -= count
    raise AttachError(f"pcocc: error: there is no vm{rank}")


def patience(cluster: dict[str, Any]) -> float:
    """Return for how many seconds a VM may stay silent: what its boot has left, and a little for one that is long up."""
    age = time.time() - os.stat(f"{cluster['directory']}/cluster.json").st_mtime
    return max(LATER_SECONDS, float(cluster["boot_timeout"]) + LATER_SECONDS - age)


def exec_ssh(argv: Sequence[str], stdin: int | None) -> None:
    """In a forked child: become an ssh that ignores the signals meant for the task."""
    try:
        signal.set_wakeup_fd(-1)
        for number in FORWARDED:
            signal.signal(number, signal.SIG_IGN)  # Slurm signals whole groups; only the guest's command shall see it
        if stdin is not None:
            os.dup2(stdin, 0)
        os.execvp(argv[0], list(argv))
    except OSError as error:
        os.write(2, f"pcocc: error: ssh cannot be started on this node: {error}\n".encode())
    finally:
        os._exit(127)

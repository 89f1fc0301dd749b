"""The small process beside a running QEMU: says when the guest answers, ends it in order, records why it ended.

It lives in the same Slurm step, is resident as long as the VM, and therefore imports as little as it can (15
MiB is the promise). What it has to say goes as lines to the step's stdout, which the starter of the boot step
reads.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time

from pcocc_runtime.documents.record import TYPE_CHECKING
from pcocc_runtime.documents.vm import decode_vm
from pcocc_runtime.documents.vm_events import (
    DiskError,
    Ended,
    Leaving,
    Ready,
    Silent,
    Started,
    StillOn,
    Unmounted,
    encode_event,
)
from pcocc_runtime.documents.vm_state import STATE_FILE, VmState, encode_state, explain_end
from pcocc_runtime.guest.script import KEYS_TAKEN_AS_USER
from pcocc_runtime.keeper.agent_port import AgentPort
from pcocc_runtime.keeper.bounded_logs import BoundedLog, LogWatch
from pcocc_runtime.keeper.cpus import bind
from pcocc_runtime.keeper.directories import Directories
from pcocc_runtime.keeper.going_on import GoingOn
from pcocc_runtime.keeper.guest_clock import GuestClock
from pcocc_runtime.keeper.pause_guard import PAUSE_AGAIN, PauseGuard
from pcocc_runtime.keeper.power_off import PowerOff
from pcocc_runtime.keeper.save_guard import SaveGuard
from pcocc_runtime.keeper.shared_ssh import PROBE_INTERVAL, SSH_LOG, SharedSsh, SshProbe
from pcocc_runtime.qemu.hot_names import plan_release
from pcocc_runtime.qemu.qmp import Messages, Unreadable, render_command
from pcocc_runtime.system.used import has_commands

if TYPE_CHECKING:
    from typing import Literal

    from pcocc_runtime.documents.vm import VmFacts
    from pcocc_runtime.documents.vm_events import Event
    from pcocc_runtime.qemu.qmp import Message

SIGNAL_INTERVAL = 0.5  # seconds between two looks for a SIGTERM that waits for QEMU
LOG_SIZE = 1 << 16  # bytes kept of what programs complain of
_RELEASE = "release-"  # before a device, in what the answer of a command is marked with
CONSOLE_TAIL = 15  # lines of the serial console shown when a guest does not answer


def main() -> int:
    """Keep the VM described on the command line until its QEMU is gone."""
    try:
        facts = decode_vm(sys.argv[1])
    except ValueError as error:
        print(
            f"pcocc: error: {error}\nhint: check that this node has one version of pcocc only, and start a"
            " new job", file=sys.stderr,
        )
        return 1
    return Keeper(facts).run()


def emit(event: Event) -> None:
    """Write one event as a line of the step's stdout; it does not matter if the starter is gone."""
    try:
        os.write(1, encode_event(event).encode())
    except OSError:
        pass


class Keeper:
    """One VM's QMP connection, process and readiness, driven by one selector.

    The guest is `booting` until it is `answering`, or `given up`: no longer looked for. A VM without an
    address counts as answering when its QEMU answers. The VM `runs` until its end is `told`, then its QEMU is `gone`.
    """

    def __init__(self, facts: VmFacts) -> None:
        self.facts = facts
        self.name = f"vm{facts.rank}"
        self.qmp = socket.socket(fileno=facts.qmp)
        self.qmp.setblocking(False)
        self.messages = Messages()
        self.looking: Literal["booting", "answering", "given up"] = "booting"
        self.life: Literal["runs", "told", "gone"] = "runs"
        self.reason = "killed"  # why the VM ends
        self.asked = False  # somebody wanted its end
        self.paused = False  # the guest does not run, so it cannot power off
        self.is_off = False
        self.started = time.monotonic()
        self.selector = selectors.DefaultSelector()
        self.console = BoundedLog(facts.console, facts.console_size)
        others = (f"{facts.directory}/{SSH_LOG}", *facts.logs)
        self.logs = LogWatch([self.console, *(BoundedLog(path, LOG_SIZE) for path in others)])
        self.power_off = PowerOff(facts, self._send)
        self.guard = SaveGuard(facts.directory, facts.agent, self.selector, self._send, self._is_held)
        self.agent = AgentPort(facts.agent, facts.agent_port, self.selector)
        self.directories = Directories(facts.directory, self.selector)
        self.clock = GuestClock(facts.agent, self.selector, self._send)
        self.pause = PauseGuard(facts.directory, self.selector, self._send, self.clock.set)
        self.going_on: GoingOn | None = None  # None: it boots
        if facts.incoming:
            self.going_on = GoingOn(facts.incoming, self._send, self._go_on)
        self.link: SharedSsh | None = None  # None: the VM has no address, or the keeper no socket to reach it
        if facts.probe is not None and facts.address:
            self.link = SharedSsh(
                facts, self.selector, SshProbe(facts.probe, facts.address), self._tell_unmounted, self._tell_keys
            )
        os.set_inheritable(facts.watch, False)  # not for ssh processes, which may outlive a killed keeper

    def run(self) -> int:
        """Wait for whatever comes first until QEMU has ended."""
        self._catch_signals()
        self.selector.register(self.qmp, selectors.EVENT_READ, self._read_qmp)
        self._watch_qemu()
        self._send("qmp_capabilities")
        while self.life != "gone":
            for key, _events in self.selector.select(self._patience()):
                key.data()
            if self.looking != "booting":
                if self.link:
                    self.link.stand_still(self.pause.is_held() or self.power_off.step == "waiting")
                    self.link.turn()
            elif self.life == "runs":
                self._look()
            if self.power_off.is_watching():
                self._watch_for_end()
            self.guard.tick()
            self.pause.tick()
            self.clock.tick()
            self.agent.tick()
            self.logs.tick()
        if self.link:
            self.link.close()
        return 0

    def _watch_qemu(self) -> None:
        try:
            self.selector.register(os.pidfd_open(self.facts.pid), selectors.EVENT_READ, self._gone)
        except ProcessLookupError:
            self._gone()  # it has ended before we began

    def _patience(self) -> float:
        waits: list[float | None] = [self.logs.patience()]
        if self.pause.is_waiting():
            waits.append(PAUSE_AGAIN)
        if self.power_off.is_watching() or any(one.is_waiting() for one in (self.guard, self.clock, self.agent)):
            waits.append(SIGNAL_INTERVAL)
        if self.looking != "booting":
            waits.append(self.link.patience() if self.link else None)
        elif self.link:
            waits.append(min(PROBE_INTERVAL, (self.link.goes_on and self.link.patience()) or PROBE_INTERVAL))
        else:
            waits.append(max(self.started + self.facts.timeout - time.monotonic(), PROBE_INTERVAL))
        return min(wait for wait in waits if wait is not None)

    def _catch_signals(self) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # meant for programs: VM steps pass them on to those in the VM
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

        def stop() -> None:
            os.read(reader, 64)
            self._stop()

        self.selector.register(reader, selectors.EVENT_READ, stop)

    def _stop(self) -> None:
        """End the VM; a guest that writes to lasting drives is asked to power off, and given its time.

        Others end after the commands that run in them, which Slurm gives a while, too, as all programs (KillWait).
        """
        self.asked = True
        if self.facts.stored and self.looking == "answering" and self.power_off.step == "on":
            self.power_off.wait()
            emit(Leaving(self.name, self.facts.node))
        elif self.power_off.step == "on" and not self.power_off.grace() and self._is_busy():
            self.power_off.step = "leaving"
        elif self.power_off.step == "on":
            self.power_off.ask(self.paused)

    def _is_held(self) -> bool:
        return self.pause.is_held()

    def _is_busy(self) -> bool:
        return not self.paused and has_commands(self.facts.directory)

    def _watch_for_end(self) -> None:
        if self.power_off.is_wanted():
            self._stop()
        elif self.power_off.step == "waiting" and self.pause.is_held():
            self.power_off.wait()
        elif self.power_off.has_waited() or (self.power_off.step == "leaving" and not self._is_busy()):
            self.power_off.ask(self.paused)
        elif self.power_off.is_late() and self.life == "runs":
            emit(StillOn(self.name, self.facts.node))
            self.power_off.force()

    def _send(self, command: str, arguments: Message | None = None, id: str | None = None) -> None:
        try:
            self.qmp.send(render_command(command, arguments, id))
        except OSError:
            pass  # QEMU is gone, or going: its pidfd will say so

    def _read_qmp(self) -> None:
        try:
            data = self.qmp.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(self.qmp)
            return
        for message in self.messages.feed(data):
            if not isinstance(message, Unreadable):  # such as an empty line
                self._take(message)

    def _take(self, message: Message) -> None:
        for part in (self.guard, self.pause, self.clock, self.going_on):
            if part:
                part.take(message)
        name, data = message.get("event"), message.get("data", {})
        if "QMP" in message:
            self._greeted()
        elif message.get("id") == "cpus":
            bind(
                self.facts.pid, [cpu["thread-id"] for cpu in message.get("return", ())], self.facts.cpus,
                self.facts.emulator,
            )
        elif name == "SHUTDOWN" and self.life == "runs":
            if self.facts.keep and data.get("reason") == "guest-shutdown" and not self.asked:
                self._note_off()
            else:
                self._shut_down(data.get("reason", "host-error"), data.get("guest", False))
        elif name == "GUEST_PANICKED" and self.life == "runs":
            self._shut_down("guest-panic", True)
        elif name == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            self._tell_disk_error(data)
        elif name == "DEVICE_DELETED":  # perhaps nobody waits for it any more
            for command, arguments in plan_release(data.get("device", ""))[:1]:
                self._send(command, arguments, f"{_RELEASE}{data['device']}")
        elif str(message.get("id")).startswith(_RELEASE) and "return" in message:
            # not if a drive is still in use: then its path is kept, for the next operation to close it
            for command, arguments in plan_release(message["id"].removeprefix(_RELEASE))[1:]:
                self._send(command, arguments)
        elif name == "RESUME":
            self.paused = False
            if self.is_off:
                self._begin_again()

    def _greeted(self) -> None:
        emit(
            Started(
                self.facts.accel, self.facts.accel_why, self.facts.kvm_expected, self.name, self.facts.node
            )
        )
        self.agent.connect()
        if self.going_on:
            self.going_on.begin()
        elif not self.facts.address and self.looking == "booting":
            self._note_answer()
        if self.facts.cpus:
            self._send("query-cpus-fast", id="cpus")

    def _go_on(self) -> None:
        self.clock.set()
        if not self.facts.address:
            self._note_answer()

    def _shut_down(self, reason: str, waits: bool) -> None:
        """Tell why a VM ends while its QEMU still runs, if that `waits`: Slurm kills us with the node's last task."""
        self.reason = reason
        self.asked = self.asked or reason == "host-signal"  # Slurm ends the step
        if waits:
            self._tell_end()
            self._send("quit")

    def _note_off(self) -> None:
        """Leave the VM as it is, to be powered on again (steps/power.py), and close its dead shared connection."""
        self.is_off = self.paused = True
        self.looking = "given up"
        self._write(VmState("off"))
        if self.link:
            self.link.close()

    def _begin_again(self) -> None:
        self.is_off = False
        self.looking, self.started = "booting", time.monotonic()
        try:
            os.unlink(os.path.join(self.facts.directory, STATE_FILE))  # none while it boots
        except OSError:
            pass  # the job's directory is already being released
        if not self.facts.address:
            self._note_answer()

    def _tell_disk_error(self, data: Message) -> None:
        self.paused = True
        full = "the file system of its disk is full"
        what = full if data.get("nospace") else data.get("reason", "its disk failed")
        file = self.facts.disks.get(data.get("device", "")) or data.get("node-name") or "its disk"
        emit(DiskError(what, file, self.name, self.facts.node))

    def _tell_unmounted(self, tag: str, kind: str, known: bool) -> None:
        emit(Unmounted(tag, kind, known, self.name, self.facts.node))

    def _tell_keys(self, status: int) -> None:
        vm = f"{self.name} on {self.facts.node}"
        text = (
            f"pcocc: note: {vm} keeps its former host key and list of ports: {self.facts.user} may not use sudo there\n"
            if status == KEYS_TAKEN_AS_USER
            else f"pcocc: error: {vm} could not take the ssh keys of this job, and 'pcocc ssh' is refused there\n"
            "hint: see whether its disk is full, by a VM step; the next step after that tries it again\n"
        )
        try:
            os.write(1, text.encode())
        except OSError:
            pass  # the starter is gone

    def _look(self) -> None:
        """Look whether the guest answers, until its time is over."""
        if self.link and self.link.goes_on:
            self.link.turn()
            answers = self.link.has_begun()
        else:
            answers = bool(self.link and self.link.probe.answers())
            if self.link and answers:
                self.link.open()
        if answers:
            self._note_answer()
        elif time.monotonic() - self.started > self.facts.timeout:
            self.looking = "given up"
            if self.link:
                self.link.goes_on = False  # it takes the keys when a task comes
            self._write(VmState("silent", self.facts.timeout))
            emit(Silent(self.facts.timeout, self._console(), self.name, self.facts.node))

    def _note_answer(self) -> None:
        self.looking = "answering"
        seconds = round(time.monotonic() - self.started, 2)
        self._write(VmState("up", seconds))
        emit(Ready(seconds, self.name, self.facts.node))

    def _console(self) -> list[str]:
        text = self.console.read_tail(4096).decode(errors="replace").replace("\r", "")
        return text.splitlines()[-CONSOLE_TAIL:]

    def _gone(self) -> None:
        if self.qmp in self.selector.get_map():
            self._read_qmp()
        self._tell_end()
        self.life = "gone"

    def _tell_end(self) -> None:
        if self.life != "runs":
            return
        self.life = "told"
        self._write(VmState("ended", reason=self.reason, asked=self.asked))
        if self.link:
            self.link.tell_end(self.reason)
        emit(Ended(self.reason, explain_end(self.reason), self.asked, self.name, self.facts.node))

    def _write(self, state: VmState) -> None:
        path = os.path.join(self.facts.directory, STATE_FILE)
        try:
            with open(path + ".tmp", "w") as stream:
                stream.write(encode_state(state))
            os.rename(path + ".tmp", path)
        except OSError:
            pass  # the job's directory is already being released

"""The small process beside a running QEMU: says when the guest answers, ends it in order, records why it ended.

It lives in the same Slurm step, is resident as long as the VM, and therefore imports as little as it can (15 MiB is
the promise). What it has to say goes as lines to the step's stdout, which the starter of the boot step reads.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time
from typing import Any

from pcocc_runtime.documents.vm_events import PREFIX, explain_end
from pcocc_runtime.keeper.cpus import bind
from pcocc_runtime.keeper.power_off import ask_agent, is_pending
from pcocc_runtime.keeper.save_guard import SaveGuard
from pcocc_runtime.keeper.shared_ssh import SharedSsh, SshProbe
from pcocc_runtime.qemu.qmp import Messages, Unreadable, render_command

PROBE_INTERVAL = 0.1  # seconds between two looks for the guest's sshd
SIGNAL_INTERVAL = 0.5  # seconds between two looks for a SIGTERM that waits for QEMU
CONSOLE_TAIL = 15  # lines of the serial console shown when a guest does not answer


def main() -> int:
    """Keep the VM described by the JSON on the command line until its QEMU is gone."""
    return Keeper(json.loads(sys.argv[1])).run()


def emit(event: str, **fields: Any) -> None:
    """Write one event as a line of the step's stdout; a starter that is gone is no reason to fail."""
    line = PREFIX + json.dumps({"event": event, **fields}, separators=(",", ":")) + "\n"
    try:
        os.write(1, line.encode())
    except OSError:
        pass


class Keeper:
    """One VM's QMP connection, process and readiness, driven by one selector."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.tags = {"vm": f"vm{facts['rank']}", "node": facts["node"]}
        self.pidfd = os.pidfd_open(facts["pid"])
        self.qmp = socket.socket(fileno=facts["qmp"])
        self.qmp.setblocking(False)
        self.messages = Messages()
        self.reason: str | None = None
        self.asked = False
        self.told = False
        self.started = time.monotonic()
        self.ready = not facts["address"]
        self.over = False
        self.paused = False
        self.last_call: float | None = None  # when a guest that was asked to power off is ended
        self.agent: socket.socket | None = None
        self.selector = selectors.DefaultSelector()
        self.guard = SaveGuard(facts["directory"], facts["agent"], self.selector, self._send)
        self.link: SharedSsh | None = None
        if facts["probe"] is not None and facts["address"]:
            self.link = SharedSsh(facts, self.selector, SshProbe(facts["probe"], facts["address"]))

    def run(self) -> int:
        """Wait for whatever comes first until QEMU has ended."""
        self._catch_signals()
        self.selector.register(self.pidfd, selectors.EVENT_READ, self._gone)
        self.selector.register(self.qmp, selectors.EVENT_READ, self._read_qmp)
        self._send("qmp_capabilities")
        while not self.over:
            for key, _events in self.selector.select(self._patience()):
                key.data()
            if not self.ready:
                self._look()
            elif self.link:
                self.link.turn()
            if self.facts["grace"]:
                self._watch_for_end()
            self.guard.tick()
        if self.link:
            self.link.close()
        return 0

    def _patience(self) -> float | None:
        if not self.ready:
            return PROBE_INTERVAL
        busy = self.facts["grace"] or self.guard.is_waiting()
        waits = (SIGNAL_INTERVAL if busy else None, self.link.patience() if self.link else None)
        return min((wait for wait in waits if wait is not None), default=None)

    def _catch_signals(self) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # meant for programs; a VM's own are told by its VM steps
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

        def stop() -> None:
            os.read(reader, 64)
            self._stop()

        self.selector.register(reader, selectors.EVENT_READ, stop)

    def _stop(self) -> None:
        """End the VM; a guest that writes to lasting drives is asked to power off, and given its time."""
        self.asked = True
        if not self.facts["grace"] or self.paused:
            self._send("quit")
        elif self.last_call is None:
            self.last_call = time.monotonic() + self.facts["grace"]
            self._send("system_powerdown")
            self.agent = ask_agent(self.facts["agent"])

    def _watch_for_end(self) -> None:
        """Slurm's SIGTERM goes to QEMU alone, which has it blocked when its guest must power off first."""
        if self.last_call is None:
            if is_pending(self.facts["pid"], signal.SIGTERM):
                self._stop()
        elif time.monotonic() > self.last_call and not self.told:
            self.facts["grace"] = 0
            emit("still-on", **self.tags)
            self._send("quit")

    def _send(self, command: str, arguments: dict[str, Any] | None = None, id: str | None = None) -> None:
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
                self._message(message)

    def _message(self, message: dict[str, Any]) -> None:
        name, data = message.get("event"), message.get("data", {})
        self.guard.take(message)
        if "QMP" in message:
            emit("started", accel=self.facts["accel"], why=self.facts["accel_why"], **self.tags)
            if self.ready:  # it has no address where anything could answer
                self._note_ready()
            if self.facts["cpus"]:
                self._send("query-cpus-fast", id="cpus")
        elif message.get("id") == "cpus":
            bind(self.facts["pid"], [cpu["thread-id"] for cpu in message.get("return", ())], self.facts["emulator_cores"])
        elif name == "SHUTDOWN" and not self.told:
            self._shut_down(data.get("reason", "host-error"), data.get("guest", False))
        elif name == "GUEST_PANICKED" and not self.told:
            self._shut_down("guest-panic", True)
        elif name == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            self._disk_error(data)
        elif name == "RESUME":
            self.paused = False

    def _shut_down(self, reason: str, waits: bool) -> None:
        """Tell why a VM ends before its QEMU, which `waits` for us, does: Slurm kills us with the last task of the node."""
        self.reason = reason
        self.asked = self.asked or reason == "host-signal"  # Slurm ends the step
        if waits:
            self._tell_end()
            self._send("quit")

    def _disk_error(self, data: dict[str, Any]) -> None:
        self.paused = True
        what = "the file system of its disk is full" if data.get("nospace") else data.get("reason", "its disk failed")
        emit("disk-error", reason=what, disk=self.facts["disks"].get(data.get("device"), "its disk"), **self.tags)

    def _look(self) -> None:
        elapsed = time.monotonic() - self.started
        if self.link and self.link.probe.answers():
            self.ready = True
            self._note_ready()
            self.link.open()
        elif elapsed > self.facts["timeout"]:
            self.ready = True  # no longer looked for
            self._write("silent", {"seconds": self.facts["timeout"]})
            emit("silent", seconds=self.facts["timeout"], console=self._console(), **self.tags)

    def _note_ready(self) -> None:
        seconds = round(time.monotonic() - self.started, 2)
        self._write("ready", {"seconds": seconds})
        emit("ready", seconds=seconds, **self.tags)

    def _console(self) -> list[str]:
        try:
            with open(os.path.join(self.facts["directory"], "console.log"), "rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
                return log.read().decode(errors="replace").replace("\r", "").splitlines()[-CONSOLE_TAIL:]
        except OSError:
            return []

    def _gone(self) -> None:
        if self.qmp in self.selector.get_map():
            self._read_qmp()
        self._tell_end()
        self.over = True

    def _tell_end(self) -> None:
        if self.told:
            return
        self.told = True
        reason = self.reason or "killed"
        text = explain_end(reason)
        self._write("ended", {"reason": reason, "asked": self.asked})
        if self.link:
            self.link.tell_end(reason)
        emit("ended", reason=reason, text=text, asked=self.asked, **self.tags)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        path = os.path.join(self.facts["directory"], name)
        try:
            with open(path + ".tmp", "w") as stream:
                json.dump(content, stream)
            os.rename(path + ".tmp", path)
        except OSError:
            pass  # the job's directory is already being released

"""The keeper's part in a save: passes the saver's words to QEMU, and puts everything back once the saver is gone.

A saver (save.py) connects to the socket `save` in the VM's directory and stays connected while it needs the VM as it is.
However it ends, the kernel closes the connection, and what it left is undone here: file systems are thawed, the layer that
took the guest's writes is merged into the disk it was put upon, or what kept a drive's old blocks is taken away. See
docs/decisions/012-save.md. Resident: imports little.

Lines of JSON. From the saver: {"execute": ...} for QEMU, answered by QEMU's reply; {"frozen": true or false}; {"layer": PATH}
of a file that is to be removed in the end; {"drive": [DEVICE, NODE]}, the node that is all the device shall have in the end.
To the saver: {"go": true} when it may begin; after it has closed its side {"merged": true} or {"merged": false, "error": ...}.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

from pcocc_runtime.documents.save import MERGE_AGAIN, MERGE_JOB, SAVE_FILTER, SAVE_OVERLAY, SAVE_SOCKET, SAVE_VIEW

THAW_AGAIN = 1.0  # seconds until a guest whose agent was not reached is asked to thaw anew
_LONGEST = 1 << 16


class SaveGuard:
    """One save at a time of one VM; `send` writes a command to QEMU."""

    def __init__(self, directory: str, agent: str, selector: selectors.BaseSelector, send: Callable[..., None]) -> None:
        self.agent_path, self.selector, self.send = agent, selector, send
        self.saver: socket.socket | None = None
        self.agent: socket.socket | None = None
        self.layer = ""
        self.base = ""  # QEMU's name of the disk that a second layer was put upon
        self.drive: tuple[str, str] | None = None  # a device of QEMU's, and the node that is its own
        self.frozen = False
        self.pending = self.heard = b""
        self.retry: float | None = None
        self.thaw_at: float | None = None
        self.listener = socket.socket(socket.AF_UNIX)
        try:
            self.listener.bind(os.path.join(directory, SAVE_SOCKET))
            self.listener.listen(8)
            self.listener.setblocking(False)
            self._await_saver()
        except OSError:
            self.listener.close()  # the job's directory is already being released

    def _await_saver(self) -> None:
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        try:
            self.saver, _address = self.listener.accept()
        except OSError:
            return
        self.saver.setblocking(False)
        self.selector.unregister(self.listener)  # others wait until this one is over
        self.selector.register(self.saver, selectors.EVENT_READ, self._read)
        self._tell(go=True)

    def _read(self) -> None:
        assert self.saver is not None
        try:
            data = self.saver.recv(_LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            self._line(line)
        if not data or len(self.pending) > _LONGEST:
            self.selector.unregister(self.saver)
            self.pending = b""
            self._undo()

    def _line(self, line: bytes) -> None:
        try:
            words = json.loads(line)
            if "frozen" in words:
                self.frozen = bool(words["frozen"])
            elif "layer" in words:
                self.layer = str(words["layer"])
            elif "drive" in words:
                device, node = words["drive"]
                self.drive = (str(device), str(node))
            else:
                self._pass_on(words["execute"], words.get("arguments", {}))
        except (ValueError, KeyError, TypeError):
            self._tell(error={"desc": "not a command"})

    def _pass_on(self, command: str, arguments: dict[str, Any]) -> None:
        if command == "blockdev-snapshot":
            self.base = str(arguments["node"])
        self.send(command, id="save", arguments=arguments)

    def _undo(self) -> None:
        if self.frozen:
            self.frozen = False
            self._thaw()
        if self.layer:
            with contextlib.suppress(OSError):
                os.unlink(self.layer)  # as a rule the saver has done so: QEMU needs no name of a file it has open
            self.layer = ""
        self._put_back()

    def _put_back(self) -> None:
        self.retry = None
        if self.drive:
            self._detach()
        elif self.base:
            self._merge()
        else:
            self._remove()

    def _detach(self) -> None:
        """Take away what reads a drive as it was; QEMU takes the commands in order, and refuses what is done already."""
        self.send("nbd-server-stop", id="save-detach")
        self.send("blockdev-del", id="save-detach", arguments={"node-name": SAVE_VIEW})
        self.send("query-block", id="save-look")

    def _detached(self, devices: list[dict[str, Any]]) -> None:
        """Give the drive back to its device alone, unless that has it: QEMU 7.2 aborts when it is given what it has."""
        assert self.drive is not None
        device, node = self.drive
        if any(one.get("inserted", {}).get("node-name") == SAVE_FILTER for one in devices):
            self.send("qom-set", id="save-detach", arguments={"path": device, "property": "drive", "value": node})
        self.send("blockdev-del", id="save-detach", arguments={"node-name": SAVE_FILTER})
        self._remove()

    def _merge(self) -> None:
        """Put the second layer into the first, which must be named: QEMU would write to the lowest, the image itself."""
        self.send("block-commit", id="save-merge", arguments={"job-id": MERGE_JOB, "device": SAVE_OVERLAY, "base-node": self.base})

    def tick(self) -> None:
        """Do what is due; called at least once a second while `is_waiting`."""
        now = time.monotonic()
        if self.retry is not None and now > self.retry:
            self._put_back()
        if self.thaw_at is not None and now > self.thaw_at:
            self._thaw()

    def is_waiting(self) -> bool:
        """Tell whether something is to be done at a certain time."""
        return self.retry is not None or self.thaw_at is not None

    def take(self, message: dict[str, Any]) -> bool:
        """Take a message of QEMU's; False when it is not about a save."""
        name, data = message.get("event"), message.get("data", {})
        if message.get("id") == "save":
            if self.saver is not None:
                self._tell(**message)
        elif message.get("id") == "save-merge":
            if "error" in message:  # QEMU refused to put it there: nothing to be merged
                self._remove()
        elif message.get("id") == "save-look":
            self._detached(message.get("return", []))
        elif message.get("id") == "save-remove":
            self._removed(message.get("error", {}).get("desc", ""))
        elif name == "BLOCK_JOB_READY" and data.get("device") == MERGE_JOB:
            self.send("job-complete", id="save-complete", arguments={"id": MERGE_JOB})
        elif name in ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED") and data.get("device") == MERGE_JOB:
            if name == "BLOCK_JOB_CANCELLED" or "error" in data:
                self._postpone(data.get("error", "it was cancelled"))
            else:
                self._remove()
        else:
            return message.get("id") in ("save-complete", "save-detach")
        return True

    def _removed(self, error: str) -> None:
        if (self.base or self.drive) and "in use" in error:
            self._postpone(error)
        else:  # gone, or never made
            self._end(merged=True)

    def _remove(self) -> None:
        self.send("blockdev-del", id="save-remove", arguments={"node-name": SAVE_OVERLAY})

    def _postpone(self, error: str) -> None:
        self.retry = time.monotonic() + MERGE_AGAIN
        self._leave(merged=False, error=error)

    def _end(self, **words: Any) -> None:
        self.base, self.drive = "", None
        self._leave(**words)
        if self.listener not in self.selector.get_map():
            self._await_saver()

    def _leave(self, **words: Any) -> None:
        if self.saver is not None:
            self._tell(**words)
            self.saver.close()
            self.saver = None

    def _tell(self, **words: Any) -> None:
        try:
            assert self.saver is not None
            self.saver.send(json.dumps(words).encode() + b"\n")
        except OSError:
            pass  # it is gone, and its end will be read

    def _thaw(self) -> None:
        """Have the guest thaw; QEMU lets this connection in when the saver's has gone, and one of ours that still waits."""
        self._hang_up()
        agent = socket.socket(socket.AF_UNIX)
        agent.setblocking(False)
        try:
            agent.connect(self.agent_path)
            # 0xff ends what the saver may have left half said; the answer to the first command tells which one is the second's
            agent.send(b'\xff{"execute": "guest-sync-delimited", "arguments": {"id": 1}}\n{"execute": "guest-fsfreeze-thaw"}\n')
        except OSError:  # as many wait there as QEMU lets wait
            agent.close()
            self.thaw_at = time.monotonic() + THAW_AGAIN
            return
        self.agent, self.heard = agent, b""
        self.selector.register(agent, selectors.EVENT_READ, self._hear)

    def _hear(self) -> None:
        if self.agent is None:
            return  # hung up in the same turn
        try:
            data = self.agent.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.heard += data
        _before, sync, answers = self.heard.rpartition(b"\xff")
        if sync and answers.count(b"\n") >= 2:
            self._hang_up()
        elif not data:
            self._hang_up()
            self.thaw_at = time.monotonic() + THAW_AGAIN

    def _hang_up(self) -> None:
        self.thaw_at = None
        if self.agent is not None:
            self.selector.unregister(self.agent)
            self.agent.close()
            self.agent = None

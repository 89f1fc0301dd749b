"""Devices of running VMs: a place for another one, and its removal, for which its guest has to release it."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pcocc_runtime.documents.command_line import COMMAND_FILE, MAX_COMMAND, decode_command_line
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.qemu.hot_names import plan_release
from pcocc_runtime.qemu.plugs import PLUGS, find_plug, is_plug
from pcocc_runtime.steps.qemu import Monitor, QemuGone
from pcocc_runtime.system import regular

TIME = "--time="
_SECONDS = 60  # that a guest has, unless somebody says otherwise
_LOOK_SECONDS = 0.2
_CLOSE_SECONDS = 10.0
_PERIPHERAL = "/machine/peripheral"


def take_seconds(words: list[str]) -> int:
    """Return how long a guest may take to release something, taken from the front of an operation's words."""
    if not words or not words[0].startswith(TIME):
        return _SECONDS
    text = words.pop(0).removeprefix(TIME)
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= 86400):
        raise RequestError(f"{text!r} is not a number of seconds", "write 1 to 86400")
    return int(text)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Have signals that would end us wait for the end of the block, which takes a moment."""
    before: Any = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def read_command_line(monitor: Monitor) -> tuple[str, ...]:
    """Return the words of the VM's QEMU."""
    path = Path(monitor.directory, COMMAND_FILE)
    return tuple(decode_command_line(regular.read_start(path, MAX_COMMAND), monitor.vm))


def find_bus(monitor: Monitor) -> str:
    """Return the bus for one more device; RequestError when the VM has no room for it."""
    devices, machine = list_devices(monitor), str(_read(monitor, "/machine", "type"))
    # not by query-pci, which knows buses only as far as the guest's firmware has numbered them
    buses = [str(_read(monitor, f"{_PERIPHERAL}/{one}", "parent_bus")) for one in devices if plan_release(one)]
    bus = find_plug(devices, {one.rpartition("/")[2] for one in buses}, machine)
    if bus is None and any(map(is_plug, devices)):
        raise RequestError(
            f"{monitor.vm} was given {PLUGS} drives and directories since its boot, and has no room for more",
            "'pcocc disk detach' or 'pcocc umount' makes room; see 'pcocc disk list' and 'pcocc mount list'",
        )
    if bus is None:
        raise RequestError(
            f"{monitor.vm} takes no devices while it runs",
            "it needs machine-type q35 or pc, no 'addr=' in custom-args, and free PCI slots, when it boots",
        )
    return bus


def ensure_running(monitor: Monitor, deed: str) -> None:
    """Raise NodeError unless the guest runs: it has to take part in this."""
    state = monitor.command("query-status").get("status")
    if state != "running":
        raise NodeError(
            f"{monitor.vm} is stopped ({state}), so its guest cannot {deed}",
            f"'pcocc monitor {monitor.vm} cont' lets it go on, when what has stopped it is mended",
        )


def unplug(monitor: Monitor, device: str, what: str, seconds: float) -> None:
    """Remove a device; NodeError, which says `what` it is, when its guest does not release it in so many seconds."""
    deadline = time.monotonic() + seconds
    try:
        monitor.command("device_del", {"id": device})
    except NodeError as error:
        if "process of unplug" not in error.message and "not found" not in error.message:
            raise
    while has_device(monitor, device):
        try:
            message = monitor.next(_LOOK_SECONDS)
        except TimeoutError:
            message = {}
        refused = message.get("event") == "DEVICE_UNPLUG_GUEST_ERROR"
        if refused and message.get("data", {}).get("device") == device:
            raise NodeError(f"the guest of {monitor.vm} refuses to release {what}", "see 'dmesg' in the guest")
        if time.monotonic() > deadline:
            raise NodeError(
                f"the guest of {monitor.vm} has not released {what} within {seconds:g} s",
                "it is asked to, and may do so later: until then everything stays as it is; try again",
            )


def has_device(monitor: Monitor, device: str) -> bool:
    """Tell whether QEMU has a device with this id."""
    return device in list_devices(monitor)


def list_devices(monitor: Monitor) -> set[str]:
    """Return the names of the VM's devices that have one."""
    return {str(one.get("name")) for one in monitor.command("qom-list", {"path": _PERIPHERAL})}


def _read(monitor: Monitor, path: str, name: str) -> object:
    return monitor.command("qom-get", {"path": path, "property": name})


def close(monitor: Monitor, device: str) -> None:
    """Have QEMU close what a device has used that is gone; NodeError when it does not within a few seconds.

    QEMU lets go of it a moment after the device is gone, which it does not announce.
    """
    deadline = time.monotonic() + _CLOSE_SECONDS
    for command, arguments in plan_release(device):
        while (why := _refusal(monitor, command, arguments)) and ("in use" in why or "is busy" in why):
            if time.monotonic() > deadline:
                raise NodeError(f"the QEMU of {monitor.vm} does not close {device}: {why}", "try again")
            time.sleep(0.02)  # nothing announces that QEMU has let go of it


def _refusal(monitor: Monitor, command: str, arguments: dict[str, Any]) -> str:
    """Return QEMU's words when it refuses; it does if the keeper was faster."""
    try:
        monitor.command(command, arguments)
    except QemuGone:
        raise
    except NodeError as error:
        return error.message
    return ""

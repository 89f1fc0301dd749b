"""The operation `@power`: powers a VM off, by its guest or at once, and powers it on again if its template keeps it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from pcocc_runtime.documents.vm import KEPT_FILE
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.guest.shutdown import ask_agent
from pcocc_runtime.steps.qemu import Monitor, QemuGone, find_end, note_boot

OFF, ON, CYCLE, NOW = "off", "on", "cycle", "--now"
_SECONDS = 120
_OFF_STATE = "shutdown"  # QEMU: RunState
_RESET_SECONDS = 10.0


class PowerWish(NamedTuple):
    """What to do, the seconds that a guest has to power off, and whether to end it at once instead."""

    deed: str
    seconds: int = _SECONDS
    now: bool = False


def check_words(words: Sequence[str]) -> PowerWish:
    """Return what is wanted: `off` or `cycle`, with the seconds that the guest has; `off --now`; or `on`."""
    deed, more = (words[0] if words else ""), list(words[1:])
    if deed not in (OFF, ON, CYCLE) or len(more) > (deed != ON):
        raise RequestError("@power takes off, on or cycle", "this is what 'pcocc power' runs")
    if more == [NOW] and deed == OFF:
        return PowerWish(OFF, now=True)
    if more and not (more[0].isascii() and more[0].isdigit() and 0 < int(more[0][:9]) <= 86400):
        raise RequestError(f"{more[0]!r} is not a number of seconds", "write 1 to 86400")
    return PowerWish(deed, int(more[0]) if more else _SECONDS)


def operate(job: int, vm: str, wish: PowerWish) -> int:
    """Do it, and tell when it is done."""
    began = time.monotonic()
    with Monitor(job, vm) as monitor:
        if wish.deed != OFF and not _is_kept(monitor):
            raise RequestError(
                f"{vm} ends when it is powered off",
                "'on-power-off: keep' in its template keeps it; 'pcocc reset' resets it",
            )
        is_off = monitor.command("query-status").get("status") == _OFF_STATE
        if wish.deed != ON and not is_off:
            _power_off(monitor, vm, wish)
        elif wish.deed == OFF and wish.now:
            monitor.command("quit")
        elif wish.deed == OFF:
            sys.stdout.write(f"{vm}: is off\n")
            return 0
        if wish.deed != OFF:
            if wish.deed == ON and not is_off:
                sys.stdout.write(f"{vm}: is on\n")
                return 0
            _power_on(monitor, vm)
            note_boot(job)
    after = "" if wish.deed == ON else f" after {time.monotonic() - began:.1f} s"
    sys.stdout.write(f"{vm}: {OFF if wish.deed == OFF else ON}{after}\n")
    return 0


def _is_kept(monitor: Monitor) -> bool:
    return os.path.exists(f"{monitor.directory}/{KEPT_FILE}")


def _power_off(monitor: Monitor, vm: str, wish: PowerWish) -> None:
    if wish.now:
        monitor.command("quit")
        return
    state = monitor.command("query-status").get("status")
    if state != "running":
        raise NodeError(
            f"{vm} is stopped ({state}), so its guest cannot power off",
            f"'pcocc power off --now {vm}' ends it",
        )
    agent = ask_agent(f"{monitor.directory}/agent")  # not every guest obeys ACPI
    try:
        monitor.command("system_powerdown")
        _await_end(monitor, vm, wish.seconds)
    finally:
        if agent:
            agent.close()


def _await_end(monitor: Monitor, vm: str, seconds: int) -> None:
    """Wait until the VM has ended, or one that is kept has powered off."""
    deadline, kept = time.monotonic() + seconds, _is_kept(monitor)
    while find_end(monitor.directory) is None:
        try:
            message = monitor.next(min(max(deadline - time.monotonic(), 0.001), 1.0))
        except QemuGone:
            return
        except TimeoutError:
            message = {}
        if kept and monitor.command("query-status").get("status") == _OFF_STATE:
            return
        if not message and time.monotonic() > deadline:
            raise NodeError(
                f"{vm} did not power off within {seconds} s", f"'pcocc power off --now {vm}' ends it at once"
            )


def _power_on(monitor: Monitor, vm: str) -> None:
    """Start the guest as at its first boot: QEMU must reset it before, which takes a moment."""
    monitor.command("system_reset")
    deadline = time.monotonic() + _RESET_SECONDS
    while monitor.command("query-status").get("status") == _OFF_STATE:
        if time.monotonic() > deadline:
            raise NodeError(f"the QEMU of {vm} does not reset it")
        time.sleep(0.02)  # no event announces the state
    monitor.command("cont")

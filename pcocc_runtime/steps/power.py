"""The operation `@power`: powers a VM off, by its guest or at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.guest.shutdown import ask_agent
from pcocc_runtime.steps.qemu import Monitor, QemuGone, find_end

OFF, NOW = "off", "--now"
_SECONDS = 120


class PowerWish(NamedTuple):
    """How to power off: by the guest, which gets some seconds for it, or at once."""

    seconds: int
    now: bool


def check_words(words: Sequence[str]) -> PowerWish:
    """Return what is wanted: `off`, and `--now` or the seconds that the guest has."""
    if words[:1] != [OFF] or len(words) > 2:
        raise RequestError(
            "@power takes the word off, and --now or a number of seconds", "this is what 'pcocc power' runs"
        )
    more = words[1] if len(words) > 1 else str(_SECONDS)
    if more != NOW and not (more.isascii() and more.isdigit() and 0 < int(more[:9]) <= 86400):
        raise RequestError(f"{more!r} is not a number of seconds", "write 1 to 86400")
    return PowerWish(0 if more == NOW else int(more), more == NOW)


def operate(job: int, vm: str, wish: PowerWish) -> int:
    """Power it off, and tell when it is."""
    began = time.monotonic()
    with Monitor(job, vm) as monitor:
        if wish.now:
            monitor.command("quit")
        else:
            state = monitor.command("query-status").get("status")
            if state != "running":
                raise NodeError(
                    f"{vm} is stopped ({state}), so that its guest cannot power off",
                    f"'pcocc power off --now {vm}' ends it",
                )
            agent = ask_agent(f"{monitor.directory}/agent")  # not every guest hears ACPI
            try:
                monitor.command("system_powerdown")
                _await_end(monitor, vm, wish.seconds)
            finally:
                if agent:
                    agent.close()
    sys.stdout.write(f"{vm}: off after {time.monotonic() - began:.1f} s\n")
    return 0


def _await_end(monitor: Monitor, vm: str, seconds: int) -> None:
    deadline = time.monotonic() + seconds
    while find_end(monitor.directory) is None:
        try:
            monitor.next(min(max(deadline - time.monotonic(), 0.001), 1.0))
        except QemuGone:
            return
        except TimeoutError:
            if time.monotonic() > deadline:
                raise NodeError(
                    f"{vm} did not power off within {seconds} s",
                    f"'pcocc power off --now {vm}' ends it at once",
                ) from None

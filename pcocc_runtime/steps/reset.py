"""The operation `@reset`: as if the VM's reset button were pressed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pcocc_runtime.errors import RequestError
from pcocc_runtime.steps.qemu import Monitor, note_boot

_STOPPED = ("io-error", "paused", "watchdog")  # QEMU: RunState, in which a reset guest does not go on


def check_words(words: Sequence[str]) -> None:
    """Refuse words: this operation takes none."""
    if words:
        raise RequestError("@reset takes no words", "write 'pcocc reset VMS'")


def operate(job: int, vm: str, _words: None) -> int:
    """Reset the VM."""
    with Monitor(job, vm) as monitor:
        state = monitor.command("query-status").get("status")
        monitor.command("system_reset")
        note_boot(job)
    note = (
        f", but it is stopped ({state}): 'pcocc monitor {vm} cont' lets it go on" if state in _STOPPED else ""
    )
    sys.stdout.write(f"{vm}: reset{note}\n")
    return 0

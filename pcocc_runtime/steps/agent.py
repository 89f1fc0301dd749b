"""The operation `@agent`: one command to a guest's QEMU agent, and its answer as JSON (docs/interop/qemu-ga-ref)."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.guest.agent import Agent
from pcocc_runtime.steps.qemu import Monitor

_HINT = "install qemu-guest-agent in the image, and have it run"


def check_words(words: Sequence[str]) -> tuple[str, dict[str, Any] | None]:
    """Return the command and its arguments; `guest-` need not be written."""
    if not 1 <= len(words) <= 2:
        raise RequestError(
            "@agent takes a command and its arguments as JSON", "such as 'pcocc agent vm0 info'"
        )
    name = words[0] if words[0].startswith("guest-") else f"guest-{words[0]}"
    if len(words) == 1:
        return name, None
    try:
        arguments = json.loads(words[1])
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise RequestError(
            f"{words[1][:80]!r} is not a mapping in JSON", """write such as '{"path": "/etc/hostname"}'"""
        )
    return name, arguments


def operate(job: int, vm: str, wanted: tuple[str, dict[str, Any] | None]) -> int:
    """Write the answer as a line."""
    with Monitor(job, vm) as monitor:
        ports = {one["label"]: one["frontend-open"] for one in monitor.command("query-chardev")}
        state = monitor.command("query-status").get("status")
        directory = monitor.directory
    if not ports.get("agent"):
        raise NodeError(f"the guest of {vm} runs no agent", _HINT)
    if state != "running":
        raise NodeError(f"{vm} is stopped ({state}), so its agent cannot answer")
    try:
        with Agent(f"{directory}/agent") as agent:
            answer = agent.command(*wanted)
    except NodeError as error:
        raise NodeError(f"{vm}: {error.message}", error.hint) from None
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0

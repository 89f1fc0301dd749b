"""The operation `@qmp`: one message of QMP to a VM's QEMU, and its answer, both JSON (docs/interop/qmp-spec)."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from pcocc_runtime.errors import RequestError
from pcocc_runtime.steps.qemu import Monitor


def check_words(words: Sequence[str]) -> dict[str, Any]:
    """Return the message; a single word is the name of a command."""
    text = words[0] if len(words) == 1 else ""
    if text and text.replace("-", "").replace("_", "").isalnum():
        return {"execute": text}
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or not isinstance(message.get("execute"), str):
        raise RequestError(
            "this is not a QMP command", """write query-status, or '{"execute": "query-status"}'"""
        )
    return message


def operate(job: int, vm: str, message: dict[str, Any]) -> int:
    """Write the answer as a line."""
    with Monitor(job, vm) as monitor:
        sys.stdout.write(json.dumps(monitor.say(message)) + "\n")
    return 0

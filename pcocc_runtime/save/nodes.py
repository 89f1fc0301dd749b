"""The block nodes that a save adds to a VM's QEMU, as options of its command blockdev-add."""

from __future__ import annotations

from typing import Any

from pcocc_runtime.documents.save import SAVE_FILTER, SAVE_OVERLAY


def plan_overlay(path: str, cache: dict[str, Any]) -> dict[str, Any]:
    """Return QEMU's options of the second layer, which is treated as the first."""
    flags = {"direct": cache["direct"], "no-flush": cache["no-flush"]}
    file = {"driver": "file", "filename": path, "cache": flags, "discard": "unmap"}
    return {
        "driver": "qcow2", "node-name": SAVE_OVERLAY, "backing": None, "cache": flags, "discard": "unmap",
        "file": file,
    }


def plan_aside(path: str) -> dict[str, Any]:
    """Return QEMU's options of the file of old blocks, which nobody needs after a crash."""
    cache = {"direct": False, "no-flush": True}
    return {
        "driver": "qcow2", "node-name": SAVE_OVERLAY, "cache": cache,
        "file": {"driver": "file", "filename": path, "cache": cache},
    }


def plan_filter(node: str) -> dict[str, Any]:
    """Return QEMU's options of the filter between guest and drive, which keeps the copy's errors from the guest."""
    return {
        "driver": "copy-before-write", "node-name": SAVE_FILTER, "file": node, "target": SAVE_OVERLAY,
        "on-cbw-error": "break-snapshot", "discard": "unmap",
    }  # fmt: skip

"""Questions to a QEMU about abilities that releases and builds differ in, as QMP lines (docs/interop/qemu-qmp-ref)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pcocc_runtime.documents.abilities import Abilities
from pcocc_runtime.qemu.qmp import parse_message, render_command

KVM_SET = 1  # the number that a descriptor of /dev/kvm has among QEMU's own
QUESTIONS = 2  # one more with each change of what is asked: answers to others that were kept are not used
ACCELERATORS = {"kvm": "kvm:tcg", "tcg": "tcg"}
# by a name in Abilities.has: a class or device, and the property that it must have
_PROPERTIES = {
    "vq-mapping": ("virtio-blk-pci", "iothread-vq-mapping"),
    "hugetlb": ("memory-backend-memfd", "hugetlb"),
    "host-nodes": ("memory-backend-ram", "host-nodes"),
    "prealloc-threads": ("memory-backend-ram", "prealloc-threads"),
    "dedicated": ("max-x86_64-cpu", "kvm-hint-dedicated"),
    "monitor-object": ("monitor-qmp", "chardev"),
}
# by a name in Abilities.has: an option of the command line, and the word that it must take
_WORDS = {"modules": ("smp-opts", "modules"), "smp-cache": ("machine", "smp-cache")}
_END = "end"
_AIO = ("io_uring", "native")  # how QEMU may read and write disks: it tries each


def plan_asking_argv(qemu: str, accel: str, kvm_fd: int | None = None) -> list[str]:
    """Return the command line of a QEMU without a machine, for QMP on its standard streams.

    `kvm_fd` is a descriptor of /dev/kvm.
    """
    accelerator = ["-machine", f"none,accel={ACCELERATORS[accel]}"]
    if accel == "kvm" and kvm_fd is not None:
        accelerator = [
            "-add-fd", f"fd={kvm_fd},set={KVM_SET}", "-machine", "none", "-accel", f"kvm,device=/dev/fdset/{KVM_SET}",
        ]
    return [qemu, *accelerator, "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio"]


def render_questions(file: str) -> bytes:
    """Return all questions, and the command to end after them; `file` is any file that can be read."""
    kinds = dict.fromkeys(kind for kind, _name in _PROPERTIES.values())
    tried = {"driver": "file", "filename": file, "read-only": True, "locking": "off", "cache": {"direct": True}}
    lines = [
        render_command("qmp_capabilities"),
        render_command("query-cpu-definitions", id="models"),
        *(
            render_command("query-command-line-options", {"option": option}, id=f"-{option}")
            for option, _word in _WORDS.values()
        ),
        *(render_command("qom-list-properties", {"typename": kind}, id=f"of {kind}") for kind in kinds),
        *(render_command("blockdev-add", {**tried, "node-name": aio, "aio": aio}, id=f"by {aio}") for aio in _AIO),
        render_command("query-version", id=_END),
        render_command("quit"),
    ]
    return b"".join(lines)


def parse_answers(lines: Iterable[bytes]) -> Abilities | None:
    """Return what a QEMU has answered, None when it did not answer all; a property that it does not know, it lacks."""
    answers: dict[str, Any] = {}
    version: tuple[int, int] | None = None
    for line in lines:
        message = parse_message(line)
        if not isinstance(message, dict):
            continue
        if "QMP" in message:
            found = message["QMP"].get("version", {}).get("qemu", {})
            version = (int(found.get("major", 0)), int(found.get("minor", 0)))
        elif "id" in message and "return" in message:
            answers[str(message["id"])] = message["return"]
    if version is None or _END not in answers:
        return None
    has = {
        name for name, (kind, wanted) in _PROPERTIES.items() if wanted in _names(answers.get(f"of {kind}", []))
    }
    for name, (option, word) in _WORDS.items():
        if any(word in _names(one.get("parameters", [])) for one in answers.get(f"-{option}", [])):
            has.add(name)
    has |= {aio for aio in _AIO if f"by {aio}" in answers}
    return Abilities(version, frozenset(has), _find_lacks(answers.get("models", [])))


def _names(listed: list[dict[str, Any]]) -> set[str]:
    return {str(one.get("name")) for one in listed}


def _find_lacks(models: list[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return the flags that each model has and this host lacks, without `type` and properties in capitals."""
    return {
        str(one["name"]): tuple(
            sorted(flag for flag in flags if re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", flag) and flag != "type")
        )
        for one in models
        if (flags := one.get("unavailable-features"))
    }

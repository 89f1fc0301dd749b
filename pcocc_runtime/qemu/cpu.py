"""The guest's CPU in QEMU's words: the host's own with KVM, and without KVM the best that QEMU emulates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcocc_runtime.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from pcocc_runtime.documents.hardware import Topology

EMULATED = "max"  # all that QEMU emulates: x86-64-v3, which RHEL 10 and its like need, from QEMU 7.2 on


def plan_cpu(accel: str, model: str | None, topology: Topology, topoext: bool) -> str:
    """Return the value of -cpu; `model` is the template's or the site's, and is passed on as it is."""
    if model is not None:
        return model
    shape, words = topology.shape, []
    if accel != "kvm":
        if shape.threads > 1 or shape.dies > 1:
            words.append("vendor=GenuineIntel")  # AMD's CPUs show both by topoext only, which is not emulated
    else:
        words += _own(topology) if topology.cpus else []
        if topoext and (shape.threads > 1 or shape.dies > 1):
            words.append("topoext=on")  # AMD's CPUs show both by it; `host` leaves it out
    if not topology.l3:
        words.append("l3-cache=off")
    return ",".join(["host" if accel == "kvm" else EMULATED, *words])


def _own(topology: Topology) -> list[str]:
    """Return what makes a guest fast whose vCPUs have CPUs of their own, given that no VM moves to another node.

    The hint lets it spin and poll instead of halting for every lock. `migratable=off` gives it the invariant TSC.
    It is shown the host's caches if it has all the CPUs that share them.
    """
    return ["migratable=off", "kvm-hint-dedicated=on", *(["host-cache-info=on"] if topology.whole_l3 else [])]


def ensure_model(model: str | None, accel: str, lacks: Mapping[str, tuple[str, ...]], template: str) -> None:
    """Raise RequestError when the host lacks flags of a named model: KVM would give the guest another CPU."""
    name, *words = (model or "").split(",")
    missing = [flag for flag in lacks.get(name, ()) if f"-{flag}" not in words and f"{flag}=off" not in words]
    if accel == "kvm" and missing:
        raise RequestError(
            f"this node's CPU is not {name}, which template {template!r} asks for: it lacks {', '.join(missing)}",
            "leave out cpu-model, use nodes whose CPUs have these flags, or do without them: cpu-model: "
            + ",".join([str(model), *(f"-{flag}" for flag in missing)]),
        )


def plan_smp(topology: Topology) -> str:
    """Return the value of -smp; if the levels are not to be shown, QEMU makes it one socket of cores."""
    shape = topology.shape
    if not topology.cpus and not topology.levels:
        return f"cpus={shape.cpus}"
    dies = f",dies={shape.dies}" if shape.dies > 1 else ""
    clusters = f",modules={shape.clusters}" if shape.clusters > 1 else ""
    levels = f"sockets={shape.sockets}{dies}{clusters},cores={shape.cores},threads={shape.threads}"
    return f"cpus={shape.cpus},{levels},maxcpus={shape.most}"


def plan_caches(topology: Topology, has: Set[str]) -> str:
    """Return the options of -machine about an L2 that cores share: by default, QEMU shows an L2 for each core."""
    return ",smp-cache.0.cache=l2,smp-cache.0.topology=module" if topology.l2 and "smp-cache" in has else ""

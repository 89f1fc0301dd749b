"""Whether somebody may have a virtual cluster: who its resource sets are for, and whether their networks fit.

Asked twice: by srun, sbatch and salloc, to tell the user early; and by root on every node of the job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pcocc_runtime import naming
from pcocc_runtime.documents.boot_step import Charge, Person
from pcocc_runtime.errors import RequestError
from pcocc_runtime.networks.kinds import Network
from pcocc_runtime.site.resource_sets import ResourceSet, find_overlap, render_overlap
from pcocc_runtime.site.rules import VmLimit


def needs_charge(rules: Sequence[ResourceSet | VmLimit]) -> bool:
    """Tell whether a set or a limit names accounts, partitions or QOS."""
    return any(one.access.accounts or one.access.partitions or one.access.qos for one in rules)


def ensure_charged(sets: Sequence[ResourceSet], charge: Charge) -> None:
    """Raise RequestError unless a job of this account, partition and QOS may use every set."""
    for one in sets:
        for noun, given, admitted in (
            ("account", charge.account, one.access.accounts),
            ("partition", charge.partition, one.access.partitions),
            ("QOS", charge.qos, one.access.qos),
        ):
            if admitted and given not in admitted:
                raise _denial(one, f"{noun} {given!r}" if given else f"jobs without {noun}", admitted)


def ensure_admitted(sets: Sequence[ResourceSet], read_person: Callable[[], Person]) -> None:
    """Raise RequestError unless the person, who is looked up only if need be, may use every set."""
    limited = [one for one in sets if one.access.users or one.access.groups]
    if limited:
        person = read_person()
        for one in limited:
            _ensure_allowed(one, person)


def _ensure_allowed(one: ResourceSet, person: Person) -> None:
    who = f"user {person.name!r}" if person.name else f"uid {person.uid}, which has no name here"
    if one.access.users and person.name not in one.access.users:
        raise _denial(one, who, one.access.users)
    if one.access.groups and person.groups.isdisjoint(one.access.groups):
        raise _denial(one, f"the groups of {who}", one.access.groups)


def _denial(one: ResourceSet, whom: str, admitted: Sequence[str]) -> RequestError:
    message = f"resource set {one.name!r} is not for {whom}; it is for: {', '.join(admitted)}"
    return RequestError(message, "use a template with another resource-set: see 'pcocc template list'")


def find_tight(limits: Sequence[VmLimit], vms: int) -> list[VmLimit]:
    """Return the limits that a job of so many VMs would exceed."""
    return [one for one in limits if one.max_vms < vms]


def ensure_few(
    limits: Sequence[VmLimit], vms: int, charge: Charge | None, read_person: Callable[[], Person]
) -> None:
    """Raise RequestError when a job of so many VMs exceeds a limit; limits of accounts and such need `charge`."""
    for one in find_tight(limits, vms):
        given = (charge.account, charge.partition, charge.qos) if charge else (None, None, None)
        lists = (one.access.accounts, one.access.partitions, one.access.qos)
        if all(not names or value in names for value, names in zip(given, lists, strict=True)) and (
            not one.access.users or read_person().name in one.access.users
        ):
            message = f"{vms} VMs are asked for, but this job can have {one.max_vms} at most"
            raise RequestError(message, "ask for fewer: see max-vms in /etc/pcocc/pcocc.yaml and policy.yaml")


def ensure_compatible(sets: Sequence[ResourceSet], networks: Mapping[str, Network]) -> None:
    """Raise RequestError unless one virtual cluster can have the networks of all these sets."""
    names = list(dict.fromkeys(name for one in sets for name in one.networks))
    if len(names) > naming.MAX_NETWORKS:
        message = (
            f"these VMs have {len(names)} networks together, but a job can have {naming.MAX_NETWORKS} at most"
        )
        raise RequestError(message, "split the VMs over several jobs")
    pair = find_overlap(names, networks)
    if pair:
        raise RequestError(render_overlap(pair), "use templates whose resource sets do not have both of them")

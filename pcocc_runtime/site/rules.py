"""policy.yaml: who may use what, and how many VMs a job may have; root's planner reads it without any template."""

from __future__ import annotations

from dataclasses import dataclass

from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Problems, Setting
from pcocc_runtime.settings.tree import Node
from pcocc_runtime.site.resource_sets import ACCESS_KEYS, ANYBODY, Access, members

KINDS = tuple(key for key in ACCESS_KEYS if key != "groups")  # the nodes check those: docs/decisions/008


@dataclass(frozen=True, slots=True)
class VmLimit:
    """The most VMs that a job within `access` may have."""

    max_vms: int
    access: Access = ANYBODY


_ACCESS = tuple(Setting(kind, members) for kind in KINDS)
LIMIT = (*_ACCESS, Setting("max-vms", checks.integer(1, 65536), True))


def _access(node: Node) -> Access:
    return Access(**checks.record(_ACCESS)(node))


def _limit(node: Node) -> VmLimit:
    values = checks.record(LIMIT)(node)
    return VmLimit(values.pop("max-vms"), Access(**values))


def _access_by_name(node: Node) -> dict[str, tuple[Node, Access]]:
    if not isinstance(node.value, dict):
        raise checks.mismatch(node, "a mapping")
    return {name: (child, _access(child)) for name, child in node.value.items()}


POLICY = (
    Setting("limits", checks.list_of(_limit)),
    Setting("templates", _access_by_name),
    Setting("resource-sets", _access_by_name),
)


@dataclass(frozen=True, slots=True)
class Rules:
    """The part of policy.yaml that nodes enforce: how many VMs jobs may have, and who may use each resource set."""

    limits: tuple[VmLimit, ...] = ()
    sets: tuple[tuple[str, Access], ...] = ()


def parse_rules(tree: Node, problems: Problems) -> Rules:
    """Return the rules of policy.yaml as far as they are right."""
    values = checks.read_mapping(tree, POLICY, problems)
    sets = tuple((name, access) for name, (_node, access) in values.get("resource-sets", {}).items())
    return Rules(values.get("limits", ()), sets)

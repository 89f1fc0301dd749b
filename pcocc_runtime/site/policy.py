"""The site's policy, also as a Lua table for job_submit: who may use which templates, and how many VMs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pcocc_runtime.networks.kinds import FunctionNetwork, InfinibandNetwork, Network
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Problems
from pcocc_runtime.settings.tree import Node
from pcocc_runtime.site.resource_sets import ANYBODY, Access, ResourceSet
from pcocc_runtime.site.rules import KINDS, POLICY, VmLimit
from pcocc_runtime.templates.inherit import resolve
from pcocc_runtime.templates.template import Template

_Lua: TypeAlias = "bool | int | str | Sequence[_Lua] | Mapping[str, _Lua]"


@dataclass(frozen=True, slots=True)
class Policy:
    """What policy.yaml says."""

    limits: tuple[VmLimit, ...] = ()
    templates: Mapping[str, Access] | None = None
    resource_sets: Mapping[str, Access] | None = None


def parse_policy(
    tree: Node, templates: Mapping[str, Template], sets: Mapping[str, ResourceSet], problems: Problems
) -> Policy:
    """Return the policy of policy.yaml; the templates and resource sets it names must be the site's."""
    values = checks.read_mapping(tree, POLICY, problems)
    access = {name: one.access for name, one in sets.items() if one.access != ANYBODY}
    for key, known in (("templates", templates), ("resource-sets", sets)):
        for name, (node, _rule) in values.get(key, {}).items():
            if name not in known:
                problems.append(node.error(f"the site has no {key[:-1].replace('-', ' ')} {name!r}"))
            elif key == "resource-sets" and name in access:
                problems.append(node.error("resources.yaml says who may use it, too", "keep one of the two"))
    return Policy(
        values.get("limits", ()),
        {name: rule for name, (_node, rule) in values.get("templates", {}).items()},
        access | {name: rule for name, (_node, rule) in values.get("resource-sets", {}).items()},
    )


def render_policy(
    policy: Policy, max_vms: int, templates: Mapping[str, Template], default_set: str | None,
    networks: Mapping[str, Network], sets: Mapping[str, ResourceSet]
) -> str:
    """Return the text of policy.lua, the document that job_submit/pcocc.lua reads."""
    access = {name: _access_table(one) for name, one in (policy.resource_sets or {}).items()}
    table: dict[str, _Lua] = {
        "max_vms": max_vms,
        "limits": [{**_access_table(limit.access), "max_vms": limit.max_vms} for limit in policy.limits],
        "templates": {name: _template_table(templates, name, default_set) for name in templates},
        "template_access": {name: _access_table(rule) for name, rule in (policy.templates or {}).items()},
        "set_access": {name: table for name, table in access.items() if table},
        **_partition_tables(networks, sets),
        **_device_table(networks, sets),
    }
    head = "-- Written by 'pcocc config policy' from the site's YAML files: edit those, not this."
    return f"{head}\nreturn {_render(table, 0)}\n"


def _partition_tables(networks: Mapping[str, Network], sets: Mapping[str, ResourceSet]) -> dict[str, _Lua]:
    """Return the pools of partition keys, and which resource sets take one; nothing without any."""
    pools = {name: one for name, one in networks.items() if isinstance(one, InfinibandNetwork)}
    if not pools:
        return {}
    return {
        "partitions": {
            name: {
                "license": one.license, "min_key": one.min_pkey, "max_key": one.max_pkey,
                "max_vms": one.max_vms,
            }
            for name, one in pools.items()
        },
        "set_partitions": {
            name: found
            for name, one in sets.items()
            if (found := [network for network in one.networks if network in pools])
        },
    }


def _device_table(networks: Mapping[str, Network], sets: Mapping[str, ResourceSet]) -> dict[str, _Lua]:
    """Return how many devices of which GRES a VM of each resource set needs; nothing without any."""
    found = {name: counts for name, one in sets.items() if (counts := _count_devices(one, networks))}
    return {"set_devices": found} if found else {}


def _count_devices(one: ResourceSet, networks: Mapping[str, Network]) -> dict[str, _Lua]:
    counts = Counter(dict(one.devices))
    for network in (networks[name] for name in one.networks):
        if isinstance(network, FunctionNetwork):
            counts[network.gres] += 1
    return {**counts}


def _access_table(access: Access) -> dict[str, _Lua]:
    return {kind: list(getattr(access, kind)) for kind in KINDS if getattr(access, kind)}


def _template_table(templates: Mapping[str, Template], name: str, default_set: str | None) -> dict[str, _Lua]:
    values = resolve(templates, name, default_set).values
    table = {"cpus": values["cpus"], "memory": values["memory"], "resource_set": values["resource-set"] or ""}
    return {**table, "full_node": True} if values["full-node"] else table


def _render(value: _Lua, depth: int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, Mapping):
        items = [f"{_key(key)} = {_render(item, depth + 1)}" for key, item in value.items()]
    else:
        items = [_render(item, depth + 1) for item in value]
    if depth > 1 or not items:
        return "{ " + ", ".join(items) + " }" if items else "{}"
    return _render_block(items, depth)


def _render_block(items: Sequence[str], depth: int) -> str:
    indent = "    " * depth
    return "{\n" + "".join(f"{indent}    {item},\n" for item in items) + indent + "}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[a-z_]+", name) and name not in _RESERVED else f"[{_quote(name)}]"


_RESERVED = frozenset((
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if",
    "in", "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
))  # fmt: skip


def _quote(text: str) -> str:
    """Return a Lua string literal; what is not plain ASCII goes in as decimal escapes of its UTF-8 bytes."""
    words = [
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03d}" for byte in text.encode()
    ]
    return f'"{"".join(words)}"'

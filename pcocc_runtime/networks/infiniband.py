"""The settings of networks of type infiniband, checked, and Slurm's licences, which stand for their keys."""

from __future__ import annotations

import re
from typing import Any

from pcocc_runtime.naming import MAX_RANK
from pcocc_runtime.networks.kinds import InfinibandNetwork
from pcocc_runtime.networks.values import word
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Setting
from pcocc_runtime.settings.devices import gres
from pcocc_runtime.settings.tree import Node

DEFAULT_KEY = 0x7FFF  # of the partition that every port of a fabric is in
MAX_GUIDS = 1 << 23  # of one pool: with these, the subnet manager's file has 400 MiB
_FULL = 0x8000  # the bit that marks full members in a port's table


def _pkey(node: Node) -> int:
    key = int(checks.pattern(r"0x[0-9a-fA-F]{1,4}", "a partition key such as 0x2000")(node), 16)
    if key in (DEFAULT_KEY, DEFAULT_KEY | _FULL):
        raise node.error(
            f"{node.raw} is the fabric's default partition, which every port is in",
            "0x7ffe is the last key for clusters",
        )
    if key > _FULL:
        raise node.error(
            f"{node.raw} is not between 0x1 and 0x7ffe",
            f"write the key without the bit that marks full members: {key & ~_FULL:#06x}",
        )
    if not 1 <= key < DEFAULT_KEY:
        raise node.error(f"{node.raw} is not between 0x1 and 0x7ffe")
    return key


def _guid_prefix(node: Node) -> int:
    prefix = int(checks.pattern(r"0x[0-9a-fA-F]{4}", "four hexadecimal digits such as 0xc2cc")(node), 16)
    if prefix >> 8 & 1:
        raise node.error(
            f"{node.raw!r} begins multicast addresses, which no port can have", "the first byte must be even"
        )
    return prefix


_NO_DAEMON = (
    "no longer needed: pcocc changes nothing at the subnet manager, and the lines that 'pcocc config partitions'"
    " prints are installed there once"
)
INFINIBAND = (
    Setting("host-device", word, True),
    Setting("min-pkey", _pkey, True),
    Setting("max-pkey", _pkey, True),
    Setting("license", word),
    Setting("guid-prefix", _guid_prefix),
    Setting("max-vms", checks.integer(1, MAX_RANK + 1)),
    Setting("gres", gres),
    Setting("opensm-daemon", checks.text, note=_NO_DAEMON),
    Setting("opensm-partition-cfg", checks.absolute),
    Setting("opensm-partition-tpl", checks.absolute, note=_NO_DAEMON),
)


_FIELDS = {"opensm_partition_cfg": "partitions_file"}
_WITHOUT_EFFECT = ("opensm_daemon", "opensm_partition_tpl")


def build_infiniband(name: str, values: dict[str, Any], node: Node) -> InfinibandNetwork:
    """Return the network of checked settings; ConfigError when they contradict each other."""
    place = node.value["min-pkey"]
    if values["min_pkey"] > values["max_pkey"]:
        raise place.error(f"min-pkey {place.raw} is above max-pkey {node.value['max-pkey'].raw}")
    kept = {_FIELDS.get(key, key): value for key, value in values.items() if key not in _WITHOUT_EFFECT}
    network = InfinibandNetwork(name, **kept)
    if len(network.keys) * network.max_vms > MAX_GUIDS:
        raise place.error(
            f"{len(network.keys)} keys for clusters of {network.max_vms} VMs are more than {MAX_GUIDS} GUIDs",
            "take fewer keys, or a smaller max-vms",
        )
    return network


def licence_of(network: InfinibandNetwork, key: int) -> str:
    """Return the name of Slurm's licence that stands for a key."""
    return f"{network.license}{key:04x}"


def parse_keys(licences: str, network: InfinibandNetwork) -> list[int]:
    """Return the keys of a network among a job's licences as slurmctld tells them, such as `matlab:2,pkey2001:1`."""
    names = re.findall(rf"(?:^|[,;|]){re.escape(network.license)}([0-9a-f]{{4}})(?=[:@,;|]|$)", licences)
    return [key for key in (int(one, 16) for one in names) if key in network.keys]

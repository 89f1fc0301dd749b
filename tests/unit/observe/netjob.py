"""What the nodes of a job would send about its networks, for tests: four VMs on two nodes, vm3 with one network more."""

from typing import Any

LAN = {
    "index": 0, "name": "lan", "layer": "L3", "members": [[0, 3]], "network": "10.200.0.0/16", "mac_prefix": "52:54:00", "mtu": 1450,
    "domain": "vcluster", "gateway": "10.200.255.254", "outbound": True,
}  # fmt: skip
PV = {"index": 1, "name": "pv", "layer": "L2", "members": [[3, 3]], "mac_prefix": "52:54:00", "mtu": 8950}
BR = {"index": 2, "name": "site", "layer": "bridged", "members": [[3, 3]], "mtu": 1500}
GOOD: dict[str, Any] = {
    "network": 0, "tried": [0, 1, 2, 3], "lost": [], "narrow": [], "silent": [], "wrong_names": [], "deaf": False, "outbound": "",
}  # fmt: skip


def link(mtu: int = 1450, received: int = 0, sent: int = 0, dropped: int = 0, up: bool = True) -> dict[str, Any]:
    return {"mtu": mtu, "up": up, "received": received, "sent": sent, "dropped": dropped}


def node(number: int, **changed: Any) -> dict[str, Any]:
    """Return what n1 (vm0, vm1) or n2 (vm2, vm3) sends; the LAN is everybody's, the others are vm3's alone."""
    ranks = [0, 1] if number == 1 else [2, 3]
    mine = [3] if number == 2 else []
    facts = {
        "job": 12, "node": f"n{number}", "nodes": [["n1", [0, 1]], ["n2", [2, 3]]], "vms": 4,
        "networks": [{**LAN, "ranks": ranks}, {**PV, "ranks": mine}, {**BR, "ranks": mine}],
        "reach": [["10.201.0.0/24", [[3, 3]]], ["10.200.0.0/16", [[0, 2]]]],
        "reverse_nat": [[rank, 22, 61222 + rank] for rank in ranks],
    }  # fmt: skip
    links = {"lo": link(65536), "br0": link(), "vx0": link(received=5 << 20), "uplink": link(1500, 10, 20)}
    links |= {f"tap{rank}n0": link(received=2048 + rank, sent=999, dropped=rank) for rank in ranks}
    links |= {"br1": link(8950), "vx1": link(8950), "br2": link(1500)}
    links |= {"tap3n1": link(8950), "tap3n2": link(1500)} if mine else {}
    return {"node": facts, "links": links, **changed}

"""A VM's login, keys and interfaces, as a guest is told of them."""

from pcocc_runtime.guest import seed

FIRST = {"index": 0, "layer": "L3", "network": "10.200.0.0/16", "domain": "vcluster", "search": [], "network6": None,
         "gateway": "10.200.255.254"}  # fmt: skip
SECOND = {"index": 1, "layer": "L3", "network": "10.201.0.0/24", "domain": "other.example", "search": ["site.example"],
          "network6": "fd70:636f:0:301::/64", "gateway": "10.201.0.254"}  # fmt: skip
BRIDGED = {"index": 2, "layer": "bridged"}
BARE = {"index": 3, "layer": "L2", "gateway": "10.200.255.254"}
MACS = ["52:54:00:00:00:01", "52:54:00:04:00:01", "52:54:00:08:00:01", "52:54:00:0c:00:01"]
NODE = {
    "networks": [FIRST, SECOND, BRIDGED, BARE],
    "interfaces": {
        "0": [{"network": 0, "mac": "52:54:00:00:00:00", "mtu": 1450}],
        "1": [{"network": n, "mac": mac, "mtu": mtu} for n, (mac, mtu) in enumerate(zip(MACS, (1450, 8950, 1500, 1500), strict=True))],
    },
}
KEYS = seed.Keys("-----BEGIN A-----\nx\n-----END A-----\n", "ssh-ed25519 AAA u", "-----BEGIN B-----\ny\n-----END B-----\n", "ssh-ed25519 BBB h")
ALICE = seed.Login("alice", 2001, 2002, "/home/alice")

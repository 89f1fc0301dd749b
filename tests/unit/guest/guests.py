"""A VM's login, keys and interfaces, as a guest is told of them."""

from ipaddress import IPv4Network

from pcocc_runtime.guest import seed
from pcocc_runtime.networks.kinds import BridgedNetwork, EthernetNetwork
from tests.fake_node import make_facts

NETWORKS = (
    EthernetNetwork("first"),
    EthernetNetwork(
        "second", int_network=IPv4Network("10.201.0.0/24"), mtu=8950, domain_name="other.example",
        dns_search=("site.example",),
    ),
    BridgedNetwork("site", host_bridge="lan0", tap_prefix="site"), EthernetNetwork("flat", layer="L2", mtu=1500),
)
SETS = {"one": ("first",), "all": ("first", "second", "site", "flat"), "none": ()}
NODE = make_facts(SETS, {"one": 1, "all": 1, "none": 1}, NETWORKS)
KEYS = seed.Keys(
    "-----BEGIN A-----\nx\n-----END A-----\n", "ssh-ed25519 AAA u", "-----BEGIN B-----\ny\n-----END B-----\n",
    "ssh-ed25519 BBB h",
)
ALICE = seed.JobUser("alice", 2001, 2002, "/home/alice")

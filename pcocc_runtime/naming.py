"""Names and numbers made of job id, network index and VM rank: here, and in `addressing`, and nowhere else.

Nothing here is allocated or remembered: two nodes, or two attempts, compute the same. Two live jobs never
share a name: a job id is unique while its job lives, and different ids make different names.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import PurePosixPath

from pcocc_runtime.documents import wire

MAX_JOB_ID = 0x03FFFFFF  # Slurm: MAX_JOB_ID is 0x03FF0000 and MaxJobId cannot exceed it (slurm.conf(5))
MAX_NETWORKS = 64  # networks of one job; with it the ports below stay in 24832..25087
MAX_RANK = 0x3FFFF  # 18 bits of the MAC address, see addressing.vm_mac

OWN_PREFIX = "pcn"  # begins the names of pcocc's other interfaces on the host

VXLAN_PORT_BASE = 24832  # below Linux's ephemeral range (32768..60999), not in the IANA registry
TUNNEL_PORTS = f"{VXLAN_PORT_BASE}-{VXLAN_PORT_BASE + 4 * MAX_NETWORKS - 1}"  # of all jobs, as nft writes a range
UPLINK = "uplink"  # the job's end of its veth pair
UPLINK_NETWORK = IPv4Network("169.254.64.0/18")  # never routed (RFC 3927), and without the clouds' 169.254.169.254
UPLINK_SLOTS = UPLINK_NETWORK.num_addresses // 2
HOST_UPLINKS = f"{OWN_PREFIX}*"  # the host's ends of all jobs, as nft writes a prefix
RUN_DIR = PurePosixPath(wire.RUN_PATH)
STATE_DIR = RUN_DIR / ".state"
ABILITIES_FILE = "abilities.json"  # in a job's directory, and in root's: what its QEMU can do
SCRATCH_NAME = "pcocc"  # our own directory in the site's scratch: others may have theirs beside it
NODE_FILE = "node.json"  # in a job's directory: what its launchers are told of the node
NETNS_DIR = PurePosixPath(wire.NETNS_PATH).parent
DNSMASQ_USER = "pcocc"  # what dnsmasq's own /etc/passwd calls the uid that it changes to, `dnsmasq_uid`


def netns_name(job: int) -> str:
    """Return the name of the job's network namespace, as `ip netns` knows it."""
    return netns_path(job).name


def netns_path(job: int) -> PurePosixPath:
    """Return where that namespace is mounted (ip-netns(8))."""
    return PurePosixPath(f"{wire.NETNS_PATH}{job}")


def job_dir(job: int) -> PurePosixPath:
    """Return the directory of the job on a node: sockets, keys and logs of its VMs, owned by its user."""
    return RUN_DIR / str(job)


def dnsmasq_uid(job: int) -> int:
    """Return the uid of the job's DHCP and DNS servers on a node, which no account has (systemd's UIDS-GIDS)."""
    return 0xF0000000 + job


def vm_name(rank: int) -> str:
    """Return the name users know a VM by."""
    return f"vm{rank}"


def uplink_name(job: int) -> str:
    """Return the name of the host's end of the job's veth pair (at most 15 characters)."""
    return f"{OWN_PREFIX}{job}"


def host_table(job: int) -> str:
    """Return the name of the job's nftables table in the host's namespace."""
    return f"pcocc-{job}"

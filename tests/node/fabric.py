"""What VMs and the node say of functions of the node's igb, and of the network they are on."""

from __future__ import annotations

from tests.node.functions import Functions, owners
from tests.node.node import Job, Node
from tests.waiting import wait_for

# the interface of the function in a guest, which igbvf drives
_FIND = "cd /sys/class/net; for one in *; do case $(readlink -f $one/device/driver) in */igbvf) echo $one ;; esac; done"
NOBODYS = "00:00:00:00:00:00"


def read_macs(node: Node) -> list[str]:
    """Return the addresses of the igb's functions, as the device has them."""
    shown = node.json("ip -json link show dev $(basename /sys/bus/pci/drivers/igb/*:*/net/*)")
    return [one["address"] for one in shown[0]["vfinfo_list"]]


def find_addresses(job: Job, vm: str) -> tuple[str, str]:
    """Return the MAC address of a VM's function, and the IP address that the site's DHCP server gave to it; its link is up."""
    name = job.vm(_FIND, vm)
    mac, carrier = job.vm(f"cat /sys/class/net/{name}/address /sys/class/net/{name}/carrier", vm).split()
    assert carrier == "1"
    show = f"ip -4 -o addr show dev {name} | sed -n 's,.* inet \\([0-9.]*\\)/.*,\\1,p'"
    return mac, wait_for(lambda: job.vm(show, vm), f"an address of {name} in {vm}", 60, 2)


def ping(job: Job, vm: str, address: str) -> None:
    """Ping an address of the fabric from a VM, which must go through its function."""
    job.vm(f"ping -c 3 -W 60 -I $({_FIND}) {address} >/dev/null", vm)


def is_root_s(node: Node, nics: Functions) -> bool:
    """Tell whether nobody has a function any more."""
    return owners(node, nics) == ["root", "root"] and read_macs(node) == [NOBODYS] * 2

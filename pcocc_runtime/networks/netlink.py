"""Network namespaces and devices through pyroute2: the only importer of it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator

from pyroute2 import netns
from pyroute2.iproute import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000

_LIBC = ctypes.CDLL(None, use_errno=True)  # else pyroute2 starts ldconfig to find it
_RESERVED = 0xFFF8  # BR_GROUPFWD_RESTRICTED of net/bridge/br_private.h forbids the other three bits
_FLOOD = "00:00:00:00:00:00"  # a VXLAN entry for this address receives what has no entry of its own (bridge(8))


def ensure_netns(name: str) -> None:
    """Create a named network namespace, or leave the one of that name as it is."""
    if os.path.ismount(naming.NETNS_DIR / name):
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(naming.NETNS_DIR / name)
    netns.create(name, libc=_LIBC)


class JobNetns:
    """Netlink sockets in the host's and in a job's namespace; entering moves the calling thread into the latter."""

    def __init__(self, name: str) -> None:
        self._host = IPRoute()
        self._file = os.open(naming.NETNS_DIR / name, os.O_RDONLY | os.O_CLOEXEC)
        netns.setns(self._file, libc=_LIBC)
        self._inside = IPRoute()
        self._index: dict[str, int] = {}
        self._refresh()

    def close(self) -> None:
        """Close the sockets; the thread stays in the job's namespace."""
        self._inside.close()
        self._host.close()
        os.close(self._file)

    def _refresh(self) -> None:
        self._index = {link.get_attr("IFLA_IFNAME"): link["index"] for link in self._inside.get_links()}

    def ensure_bridge(self, name: str, mac: str, mtu: int, addresses: Iterable[tuple[str, int]], reserved: bool = False) -> None:
        """Create a bridge that is up, with its MAC and (address, prefix length) pairs.

        `reserved`: it passes on what the kernel lets it of frames for 01:80:c2:00:00:0x (all but STP, pause and LACP).
        """
        if name not in self._index:
            mask = {"br_group_fwd_mask": _RESERVED} if reserved else {}
            self._inside.link("add", ifname=name, kind="bridge", address=mac, **mask)
            self._refresh()
        self._inside.link("set", index=self._index[name], mtu=mtu, state="up")
        for address, length in addresses:
            with _already():
                self._inside.addr("add", index=self._index[name], address=address, prefixlen=length)

    def ensure_loopback(self) -> None:
        """Bring lo up: dnsmasq and ping to oneself want it."""
        self._inside.link("set", index=self._index["lo"], state="up")

    def ensure_tunnel(self, name: str, mac: str, vni: int, port: int, mtu: int, source: str | None) -> None:
        """Create a VXLAN device that routes to known peers: outer socket in the host's namespace, nothing learned."""
        self._ensure_vxlan(name, source, address=mac, vxlan_id=vni, vxlan_port=port, vxlan_learning=False)
        self._inside.link("set", index=self._index[name], mtu=mtu, state="up")

    def _ensure_vxlan(self, name: str, source: str | None, **settings: object) -> None:
        if name not in self._index:
            local = {"vxlan_local": source} if source else {}
            self._host.link("add", ifname=name, kind="vxlan", net_ns_fd=self._file, **settings, **local)
            self._refresh()

    def ensure_segment(
        self, name: str, bridge: str, vni: int, port: int, mtu: int, peers: Iterable[str], source: str | None
    ) -> None:
        """Create the tunnel of an L2 network as a port of its bridge: what no MAC is known for is sent to each peer."""
        self._ensure_vxlan(name, source, vxlan_id=vni, vxlan_port=port, vxlan_learning=True)
        index = self._index[name]
        self._inside.link("set", index=index, mtu=mtu, master=self._index[bridge], state="up")
        for peer in peers:
            with _already():
                self._inside.fdb("append", ifindex=index, lladdr=_FLOOD, dst=peer)

    def ensure_port(self, name: str, bridge: str) -> None:
        """Make a device that is there a port of a bridge, and bring it up."""
        self._inside.link("set", index=self._index[name], master=self._index[bridge], state="up")

    def ensure_taps(self, bridge: str, names: Iterable[str], mtu: int) -> None:
        """Create persistent tap devices on a bridge, which only a process with CAP_NET_ADMIN can attach to."""
        wanted = list(names)
        for name in wanted:
            if name not in self._index:
                _create_tap(name)
        self._refresh()
        for name in wanted:
            self._inside.link("set", index=self._index[name], mtu=mtu, master=self._index[bridge], state="up")


def _create_tap(name: str) -> None:
    request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
    try:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        message = f"{os.uname().nodename} cannot make tap devices: /dev/net/tun: {error.strerror}"
        raise NodeError(message, hint="ask the admins to load the kernel module tun there") from None
    try:
        fcntl.ioctl(tun, _TUNSETIFF, request)
        fcntl.ioctl(tun, _TUNSETPERSIST, 1)
    finally:
        os.close(tun)


@contextlib.contextmanager
def _already() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


@contextlib.contextmanager
def telling_refusals() -> Iterator[None]:
    """Turn what the kernel refuses into a NodeError; any user can hold a UDP port that a tunnel needs."""
    try:
        yield
    except NetlinkError as error:
        taken = error.code == errno.EADDRINUSE
        raise NodeError(
            f"{os.uname().nodename} cannot build the job's networks: {os.strerror(error.code)}",
            hint=f"see who holds UDP ports of {naming.TUNNEL_PORTS}: ss -lunp" if taken else "ask the admins to look at this node",
        ) from None


@contextlib.contextmanager
def coming_back() -> Iterator[None]:
    """Bring the calling thread back into its network namespace in the end, wherever it went."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        netns.setns(home, libc=_LIBC)
        os.close(home)


def ensure_veth(name: str, other_netns: str, other_name: str, mtu: int) -> None:
    """Create a pair of veth devices, one here and up, the other in a named namespace."""
    there = os.open(naming.NETNS_DIR / other_netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with IPRoute() as here, _already():
            here.link("add", ifname=name, kind="veth", mtu=mtu, peer={"ifname": other_name, "mtu": mtu, "net_ns_fd": there})
    finally:
        os.close(there)


def ensure_address(name: str, address: str, length: int, gateway: str | None = None) -> None:
    """Bring a device of this namespace up with an address, and make it the way to everywhere when `gateway` is given."""
    with IPRoute() as here:
        index = here.link_lookup(ifname=name)[0]
        here.link("set", index=index, state="up")
        with _already():
            here.addr("add", index=index, address=address, prefixlen=length)
        if gateway:
            here.route("replace", dst="default", gateway=gateway, oif=index)


def remove_link(name: str) -> None:
    """Delete a device of this namespace, if there is one of that name."""
    with IPRoute() as here:
        for index in here.link_lookup(ifname=name):
            with contextlib.suppress(NetlinkError):
                here.link("del", index=index)

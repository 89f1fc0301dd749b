"""What each setting of networks.yaml may say: checks that turn a value of the file into the one that is used."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

from pcocc_runtime import addressing, naming
from pcocc_runtime.networks.kinds import DevicePool, ReverseNat, Vlan
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Problems, Setting
from pcocc_runtime.settings.devices import gres
from pcocc_runtime.settings.tree import Node

_NEVER_INSIDE = (  # what no interface of a VM can have: RFC 6890, section 2.2.2
    (IPv4Network("0.0.0.0/8"), "'this network'"),
    (IPv4Network("127.0.0.0/8"), "loopback"),
    (IPv4Network("169.254.0.0/16"), "link-local, where 169.254.64.0/18 is pcocc's own on the nodes"),
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("240.0.0.0/4"), "reserved"),
)


def cidr(node: Node) -> IPv4Network:
    """Check for an IPv4 network, written without an address in it."""
    text = checks.text(node)
    try:
        loose = IPv4Network(text, strict=False)
    except ValueError:
        raise checks.mismatch(node, "an IPv4 network such as 10.200.0.0/16") from None
    if loose.network_address != IPv4Address(text.partition("/")[0]):
        raise node.error(f"{text} is an address inside a network, not a network", f"write {loose}")
    return loose


def int_network(node: Node) -> IPv4Network:
    """Check for the network that VMs' addresses are taken from."""
    network = cidr(node)
    if not 8 <= network.prefixlen <= 29:
        raise node.error(f"{network} must have a prefix length between 8 and 29")
    for reserved, why in _NEVER_INSIDE:
        if network.overlaps(reserved):
            raise node.error(
                f"{network} overlaps {reserved}, which is {why}", "take a range such as 10.200.0.0/16"
            )
    return network


def outbound(node: Node) -> bool | tuple[IPv4Network, ...]:
    """Check for where VMs may send packets: all (true), none (false), or to these networks."""
    if isinstance(node.value, tuple):
        allowed: tuple[IPv4Network, ...] = checks.list_of(cidr)(node)
        if not allowed:
            raise node.error("the list is empty", "write 'none' when VMs shall reach nothing outside")
        return allowed
    if node.raw not in ("all", "none"):
        raise checks.mismatch(node, "'all', 'none' or a list of IPv4 networks")
    return node.raw == "all"


def encryption(node: Node) -> str:
    """Check for the encryption of tunnels; there is only 'none' yet."""
    if node.raw != "none":
        raise checks.mismatch(
            node, "'none'", "pcocc cannot encrypt tunnels yet"
        )
    return node.raw


def address(node: Node) -> IPv4Address:
    """Check for an IPv4 address."""
    try:
        return IPv4Address(checks.text(node))
    except ValueError:
        raise checks.mismatch(node, "an IPv4 address such as 192.0.2.53") from None


def mac_prefix(node: Node) -> str:
    """Check for the first bytes of VMs' MAC addresses; the value has three."""
    prefix: str = checks.pattern(
        r"([0-9a-fA-F]{2}:){0,2}[0-9a-fA-F]{2}", "one to three bytes such as 52:54:00"
    )(node)
    parts = [*prefix.lower().split(":"), "00", "00"][:3]
    if int(parts[0], 16) & 1:
        raise node.error(
            f"{prefix!r} begins multicast addresses, which no interface can have",
            "the first byte must be even",
        )
    if ":".join(parts) in (addressing.NODE_MAC_PREFIX, addressing.gateway_mac(0)[:8]):
        raise node.error(
            f"{prefix!r} begins the addresses of the nodes themselves",
            "take another prefix, such as 52:54:00",
        )
    return ":".join(parts)


def domain(node: Node) -> str:
    """Check for a domain name; the value has no dot at its end."""
    name = checks.text(node).rstrip(".")
    if len(name) > 190 or not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*", name):
        raise node.error(f"{name!r} is not a domain name")
    return name


def search(node: Node) -> tuple[str, ...]:
    """Check for domain names, as a list or with commas between them."""
    if isinstance(node.value, tuple):
        domains: tuple[str, ...] = checks.list_of(domain)(node)
        return domains
    return tuple(
        domain(Node(word.strip(), node.file, node.line, node.path, word))
        for word in checks.text(node).split(",")
    )


def interface(longest: int) -> checks.Check:
    """Return the check for (the beginning of) an interface's name, stricter than the kernel's dev_valid_name()."""

    def check(node: Node) -> str:
        name: str = checks.pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "letters, digits, '_', '.' and '-'")(node)
        if len(name) > longest:
            rest = addressing.MAX_INTERFACE_NAME - longest
            why = f"an interface's name has at most {addressing.MAX_INTERFACE_NAME}" + (
                f", and pcocc needs {rest} of them" if rest else ""
            )
            raise node.error(f"{name!r} has {len(name)} characters, but may have {longest} at most: {why}")
        return name

    return check


def tap_prefix(node: Node) -> str:
    """Check for the beginning of taps' names on a site's bridge."""
    prefix: str = interface(addressing.MAX_PORT_PREFIX)(node)
    if prefix.startswith(naming.OWN_PREFIX):
        raise node.error(
            f"{prefix!r} begins like names of pcocc's own interfaces",
            f"take one that does not begin with {naming.OWN_PREFIX!r}"
        )
    return prefix


_PORT = checks.integer(1, 65535)
_REVERSE_NAT = (
    Setting("vm-port", _PORT, True),
    Setting("min-host-port", _PORT, True),
    Setting("max-host-port", _PORT, True),
)


def _rule(node: Node) -> ReverseNat:
    ports = checks.record(_REVERSE_NAT)(node)
    rule = ReverseNat(ports["vm-port"], ports["min-host-port"], ports["max-host-port"])
    if rule.min_host_port > rule.max_host_port:
        raise node.error(f"min-host-port {rule.min_host_port} is above max-host-port {rule.max_host_port}")
    return rule


def rule_nodes(node: Node) -> tuple[Node, ...]:
    """Return the rules of reverse-nat; a single rule may stand without a list."""
    return node.value if isinstance(node.value, tuple) else (node,)


def reverse_nat(node: Node) -> tuple[ReverseNat, ...]:
    """Check for ranges of host ports that lead to ports of VMs: one, or a list of them."""
    rules: tuple[ReverseNat, ...] = checks.list_of(_rule)(
        Node(rule_nodes(node), node.file, node.line, node.path)
    )
    problems: Problems = []
    for index, item in enumerate(rule_nodes(node)):
        if rules[index].vm_port in [rule.vm_port for rule in rules[:index]]:
            problems.append(
                item.error(
                    f"vm-port {rules[index].vm_port} has a range already", "give it one range that is large enough"
                )
            )
    checks.raise_problems(problems)
    return rules


def _range(node: Node) -> IPv4Network | IPv6Network:
    text = checks.text(node)
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise checks.mismatch(
            node, "a network or an address such as 192.0.2.128/25, 192.0.2.7 or 2001:db8::/64"
        ) from None
    raise node.error(f"{text} is an address inside a network, not a network", f"write {loose}")


def addresses(node: Node) -> tuple[IPv4Network | IPv6Network, ...]:
    """Check for the addresses that VMs on a site's bridge may have."""
    ranges: tuple[IPv4Network | IPv6Network, ...] = checks.list_of(_range)(node)
    if not ranges:
        raise node.error("the list is empty", "leave it out when VMs may have any address")
    return ranges


_VLAN = (
    Setting("vid", checks.integer(1, 4094), True),
    Setting("type", checks.choice("native", "tagged", "untagged"), True),
)


def vlans(node: Node) -> tuple[Vlan, ...]:
    """Check for the VLANs of a site's bridge; only one of them can be native."""
    vlans = tuple(Vlan(**one) for one in checks.list_of(checks.record(_VLAN))(node))
    problems: Problems = []
    for index, (vlan, item) in enumerate(zip(vlans, node.value, strict=True)):
        if vlan.vid in [one.vid for one in vlans[:index]]:
            problems.append(item.error(f"VLAN {vlan.vid} is listed twice"))
        elif vlan.type == "native" and (
            first := next((one for one in vlans[:index] if one.type == "native"), None)
        ):
            problems.append(
                item.error(f"VLAN {first.vid} is native already; only one can be", "make this one tagged")
            )
    checks.raise_problems(problems)
    return vlans


word = checks.pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", "a word of letters, digits, '_', '.' and '-'")
_ADDRESSES = checks.pattern(
    r"([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]", "a PCI address such as 0000:81:00.0"
)
_KINDS = checks.pattern(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{4}", "a vendor and a device such as 10de:20b2")


def devices(node: Node) -> tuple[str, ...]:
    """Check for PCI addresses of devices."""
    return _distinct(node, _ADDRESSES, "device")


def kinds_of_devices(node: Node) -> tuple[str, ...]:
    """Check for kinds of PCI devices, each a vendor and a device."""
    return _distinct(node, _KINDS, "kind")


def _distinct(node: Node, form: checks.Check, noun: str) -> tuple[str, ...]:
    found: tuple[str, ...] = checks.list_of(form)(node)
    if not found:
        raise node.error("the list is empty", f"name at least one {noun}")
    twice = next((one for one in found if found.count(one) > 1), None)
    if twice:
        raise node.error(f"{noun} {twice} is listed twice")
    return found


_POOL = (
    Setting("addresses", devices), Setting("ids", kinds_of_devices), Setting("host-driver", word),
)  # fmt: skip


def device_pools(node: Node) -> dict[str, DevicePool]:
    """Check for a mapping of names of GRES to the PCI devices of nodes that they are."""
    found: dict[str, DevicePool] = {}
    for name, values in checks.mapping_of(checks.record(_POOL))(node).items():
        place = node.value[name]
        gres(Node(name, place.file, place.line, place.path, name))
        if not (values.get("addresses") or values.get("ids")):
            raise place.error("addresses and ids are missing", "give one of them, or both")
        found[name] = DevicePool(name, **checks.as_fields(values))
    return found

"""Runs in a guest: send forged frames on eth0, each with its name as padding, then one honest frame with the word END.

Usage: forge.py NETWORK_NAME...; frames are named in FRAMES. Frames go to everybody, so that no forwarding table matters.
"""

import sys
from collections.abc import Callable

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)  # fmt: skip
from scapy.layers.l2 import ARP, LLC, STP, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from tests.netns.frames import send_frames

ALL, ALL6 = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"
ME, OTHER, GATEWAY, NODE = "10.200.0.1", "10.200.0.2", "10.200.255.254", "10.200.255.253"
MY_MAC, OTHER_MAC, BRIDGE_MAC = "52:54:00:00:00:00", "52:54:00:00:00:01", "02:70:67:00:00:00"
ME6, OTHER6, GATEWAY6 = "fe80::5054:ff:fe00:0", "fe80::5054:ff:fe00:1", "fe80::70:67ff:fe00:0"


def ip(source: str = ME, mac: str = MY_MAC) -> Packet:
    return Ether(src=mac, dst=ALL) / IP(src=source, dst="10.200.255.255") / UDP(sport=7, dport=7777)


def arp(op: int, mac: str, source: str, target: str, outer: str = MY_MAC) -> Packet:
    return Ether(src=outer, dst=ALL) / ARP(op=op, hwsrc=mac, psrc=source, pdst=target)


def ip6(source: str = ME6, hop: int = 255) -> Packet:
    return Ether(src=MY_MAC, dst=ALL6) / IPv6(src=source, dst="ff02::1", hlim=hop)


def advert(target: str, source: str = ME6) -> Packet:
    return ip6(source) / ICMPv6ND_NA(tgt=target, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=MY_MAC)


def router_advert() -> Packet:
    return ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="2001:db8::", prefixlen=64)


def offer() -> Packet:
    return BOOTP(op=2, yiaddr=OTHER) / DHCP(options=[("message-type", "offer"), ("router", ME), "end"])


def behind_options(upper: Packet, first: bool) -> Packet:
    """Hide what a packet is in its second fragment: the first holds a destination options header only."""
    whole = bytes(IPv6(src=ME6, dst="ff02::1", hlim=255) / IPv6ExtHdrDestOpt(options=[]) / upper)[40:]
    part = whole[:8] if first else whole[8:]
    header = IPv6ExtHdrFragment(nh=60, offset=0 if first else 1, m=1 if first else 0, id=77)
    return Ether(src=MY_MAC, dst=ALL6) / IPv6(src=ME6, dst="ff02::1", hlim=255) / header / Raw(part)


HONEST: dict[str, Callable[[], Packet]] = {
    "ip": ip,
    "arp-request": lambda: arp(1, MY_MAC, ME, OTHER),
    "arp-reply": lambda: arp(2, MY_MAC, ME, OTHER),
    "arp-probe": lambda: arp(1, MY_MAC, "0.0.0.0", ME),
    "neighbour-solicitation": lambda: ip6() / ICMPv6ND_NS(tgt=OTHER6),
    "neighbour-advertisement": lambda: advert(ME6),
    "duplicate-address-detection": lambda: ip6("::") / ICMPv6ND_NS(tgt=ME6),
    "router-solicitation": lambda: ip6() / ICMPv6ND_RS(),
    "ping6": lambda: ip6() / UDP(sport=7, dport=7777),
}
FORGED: dict[str, Callable[[], Packet]] = {
    "mac-of-another": lambda: ip(mac=OTHER_MAC),
    "mac-of-bridge": lambda: ip(mac=BRIDGE_MAC),
    "mac-of-nobody": lambda: ip(mac="52:54:00:00:00:77"),
    "ip-of-another": lambda: ip(OTHER),
    "ip-of-gateway": lambda: ip(GATEWAY),
    "ip-of-node": lambda: ip(NODE),
    "ip-of-outside": lambda: ip("198.51.100.7"),
    "ip-of-nobody": lambda: ip("0.0.0.0"),
    "arp-answer-for-another": lambda: arp(2, MY_MAC, OTHER, ME),
    "arp-answer-for-gateway": lambda: arp(2, MY_MAC, GATEWAY, OTHER),
    "arp-gratuitous-for-gateway": lambda: arp(1, MY_MAC, GATEWAY, GATEWAY),
    "arp-request-as-gateway": lambda: arp(1, MY_MAC, GATEWAY, OTHER),
    "arp-with-anothers-mac-inside": lambda: arp(2, OTHER_MAC, ME, OTHER),
    "arp-with-anothers-mac-outside": lambda: arp(2, MY_MAC, ME, OTHER, OTHER_MAC),
    "arp-probe-for-another": lambda: arp(1, MY_MAC, "0.0.0.0", OTHER),
    "arp-answer-for-nobody": lambda: arp(2, MY_MAC, "0.0.0.0", OTHER),
    "arp-reverse": lambda: arp(3, MY_MAC, ME, OTHER),
    "dhcp-offer": lambda: Ether(src=MY_MAC, dst=ALL) / IP(src=ME, dst="255.255.255.255") / UDP(sport=67, dport=68) / offer(),
    "dhcp-offer-from-odd-port": lambda: Ether(src=MY_MAC, dst=ALL) / IP(src=ME, dst="255.255.255.255") / UDP(sport=99, dport=68),
    "dhcp-offer-cut-in-pieces": lambda: Ether(src=MY_MAC, dst=ALL)
    / fragment(IP(src=ME, dst="255.255.255.255") / UDP(sport=67, dport=68) / offer(), 8)[0],
    "dhcp-offer-as-gateway": lambda: ip(GATEWAY)[Ether] / offer(),
    "dhcp6-advertise": lambda: ip6() / UDP(sport=547, dport=546) / DHCP6_Advertise(),
    "ip6-of-another": lambda: ip6(OTHER6) / UDP(sport=7, dport=7777),
    "ip6-of-gateway": lambda: ip6(GATEWAY6) / UDP(sport=7, dport=7777),
    "ip6-of-outside": lambda: ip6("2001:db8::7") / UDP(sport=7, dport=7777),
    "router-advertisement": lambda: ip6() / router_advert(),
    "router-advertisement-behind-options": lambda: ip6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / router_advert(),
    "router-advertisement-piece-1": lambda: behind_options(router_advert(), True),
    "router-advertisement-piece-2": lambda: behind_options(router_advert(), False),
    "redirect": lambda: ip6() / ICMPv6ND_Redirect(tgt=ME6, dst="2001:db8::7"),
    "neighbour-advertisement-for-another": lambda: advert(OTHER6),
    "neighbour-advertisement-for-gateway": lambda: advert(GATEWAY6),
    "neighbour-advertisement-as-gateway": lambda: advert(GATEWAY6, GATEWAY6),
    "duplicate-address-claim": lambda: ip6("::") / ICMPv6ND_NS(tgt=OTHER6),
    "vlan": lambda: Ether(src=MY_MAC, dst=ALL) / Dot1Q(vlan=5) / IP(src=ME, dst="10.200.255.255") / UDP(dport=7777),
    "vlan-zero": lambda: Ether(src=MY_MAC, dst=ALL) / Dot1Q(vlan=0) / ARP(op=2, hwsrc=MY_MAC, psrc=GATEWAY, pdst=OTHER),
    "vlan-of-provider": lambda: Ether(src=MY_MAC, dst=ALL, type=0x88A8) / Raw(bytes(60)),
    "other-ethertype": lambda: Ether(src=MY_MAC, dst=ALL, type=0x88B5) / Raw(bytes(50)),
    "spanning-tree": lambda: Dot3(src=MY_MAC, dst="01:80:c2:00:00:00") / LLC() / STP(),
    "no-ethertype": lambda: Dot3(src=MY_MAC, dst=ALL) / LLC() / Raw(bytes(40)),
}
FLAT: dict[str, Callable[[], Packet]] = {
    "neighbour-of-wire": lambda: Ether(src=MY_MAC, dst="01:80:c2:00:00:0e", type=0x88CC) / Raw(bytes(50)),  # LLDP
}
TO_NODE: dict[str, Callable[[], Packet]] = {
    # a frame for this group is handed to the port itself, past the bridge's filters of forwarded frames
    "reserved-group": (
        lambda: Ether(src=MY_MAC, dst="01:80:c2:00:00:02")
        / IP(src=ME, dst=NODE)
        / UDP(sport=7, dport=7778)
        / Raw(b"reserved-group")
    ),
}
FRAMES = {**HONEST, **FORGED, **FLAT, **TO_NODE}


if __name__ == "__main__":
    send_frames(FRAMES, sys.argv[1:], ip())

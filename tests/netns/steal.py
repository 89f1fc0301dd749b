"""Runs in a guest on a bridge of the site: send frames on eth0, each with its name as padding, then one with the word END.

Usage: steal.py NAME...; `ME` is an address that the site gives its VMs, `SERVER` one of its server's.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.netns.frames import send_frames

ME, SERVER, ALL, ALL6 = "198.51.100.9", "198.51.100.1", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"
ME6, SERVER6 = "2001:db8:0:1::9", "2001:db8::1"
MY_MAC = Path("/sys/class/net/eth0/address").read_text().strip()
SERVERS_MAC = "02:00:00:00:00:07"


def ip(source: str = ME, mac: str = MY_MAC) -> Packet:
    return Ether(src=mac, dst=ALL) / IP(src=source, dst="198.51.100.255") / UDP(sport=7, dport=7777)


def arp(source: str, target: str = "198.51.100.77", inside: str = MY_MAC, outside: str = MY_MAC, op: int = 2) -> Packet:
    return Ether(src=outside, dst=ALL) / ARP(op=op, hwsrc=inside, psrc=source, pdst=target)


def ip6(source: str) -> Packet:
    return Ether(src=MY_MAC, dst=ALL6) / IPv6(src=source, dst="ff02::1", hlim=255)


def own_link() -> str:
    raw = bytes.fromhex(MY_MAC.replace(":", ""))
    return f"fe80::{raw[0] ^ 2:02x}{raw[1]:02x}:{raw[2]:02x}ff:fe{raw[3]:02x}:{raw[4]:02x}{raw[5]:02x}"


def tagged(depth: int, inner: Packet) -> Packet:
    frame = Ether(src=MY_MAC, dst=ALL)
    for number in range(depth):
        frame = frame / Dot1Q(vlan=5 + number)
    return frame / inner


HONEST: dict[str, Callable[[], Packet]] = {
    "own-address": ip,
    "own-arp": lambda: arp(ME),
    "own-probe": lambda: arp("0.0.0.0", ME, op=1),
    "own-question": lambda: arp(ME, SERVER, op=1),
    "dhcp-question": lambda: Ether(src=MY_MAC, dst=ALL) / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67),
    "own-address6": lambda: ip6(ME6) / UDP(sport=7, dport=7777),
    "own-link-local": lambda: ip6(own_link()) / UDP(sport=7, dport=7777),
    "own-advertisement": lambda: ip6(ME6) / ICMPv6ND_NA(tgt=ME6),
    "own-claim": lambda: ip6("::") / ICMPv6ND_NS(tgt=ME6),
    "own-question6": lambda: ip6(ME6) / ICMPv6ND_NS(tgt=SERVER6),
    "own-tagged": lambda: tagged(1, IP(src=ME, dst="198.51.100.255") / UDP(dport=7777)),
    "other-protocol": lambda: Ether(src=MY_MAC, dst=ALL, type=0x88B5) / Raw(bytes(50)),
}
MACS: dict[str, Callable[[], Packet]] = {  # refused on every such network
    "mac-of-server": lambda: ip(mac=SERVERS_MAC),
    "mac-of-nobody": lambda: ip(mac="52:54:00:00:00:77"),
    "arp-with-mac-of-server-inside": lambda: arp(ME, inside=SERVERS_MAC),
    "arp-with-mac-of-server-outside": lambda: arp(ME, outside=SERVERS_MAC),
    "tagged-with-mac-of-server": lambda: Ether(src=SERVERS_MAC, dst=ALL) / Dot1Q(vlan=5) / IP(src=ME, dst="198.51.100.255"),
}
ADDRESSES: dict[str, Callable[[], Packet]] = {  # refused where the site gives addresses
    "ip-of-server": lambda: ip(SERVER),
    "arp-answer-for-server": lambda: arp(SERVER),
    "arp-claim-of-server": lambda: arp(SERVER, SERVER, op=1),
    "arp-probe-for-server": lambda: arp("0.0.0.0", SERVER, op=1),
    "ip6-of-server": lambda: ip6(SERVER6) / UDP(sport=7, dport=7777),
    "link-local-of-another": lambda: ip6("fe80::7") / UDP(sport=7, dport=7777),
    "advertisement-for-server": lambda: ip6(ME6) / ICMPv6ND_NA(tgt=SERVER6),
    "claim-of-server6": lambda: ip6("::") / ICMPv6ND_NS(tgt=SERVER6),
    "router-advertisement": lambda: ip6(own_link()) / ICMPv6ND_RA(),
    "tagged-ip-of-server": lambda: tagged(1, IP(src=SERVER, dst="198.51.100.255") / UDP(dport=7777)),
    "tagged-arp-for-server": lambda: tagged(1, ARP(op=2, hwsrc=MY_MAC, psrc=SERVER, pdst=ME)),
    "tagged-twice": lambda: tagged(2, IP(src=SERVER, dst="198.51.100.255") / UDP(dport=7777)),
}
FRAMES = {**HONEST, **MACS, **ADDRESSES}


if __name__ == "__main__":
    send_frames(FRAMES, sys.argv[1:], ip())

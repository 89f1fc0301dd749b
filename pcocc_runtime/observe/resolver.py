"""Questions to a DNS server of our choice: the only importer of dnspython."""

from __future__ import annotations

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rdatatype
import dns.reversename

DNS_SECONDS = 1.0


def find_addresses(server: str, name: str) -> list[str] | None:
    """Return the IPv4 addresses a server has for a name; None when it does not answer."""
    return _ask(server, dns.name.from_text(name), "A")


def find_names(server: str, address: str) -> list[str] | None:
    """Return the names a server has for an address, without the last dot; None when it does not answer."""
    found = _ask(server, dns.reversename.from_address(address), "PTR")
    return None if found is None else [name.rstrip(".") for name in found]


def _ask(server: str, name: dns.name.Name, kind: str) -> list[str] | None:
    query = dns.message.make_query(name, kind)
    try:
        answer = dns.query.udp(query, server, timeout=DNS_SECONDS)
    except (dns.exception.DNSException, OSError):
        return None
    wanted = dns.rdatatype.from_text(kind)
    return [record.to_text() for rows in answer.answer if rows.rdtype == wanted for record in rows]

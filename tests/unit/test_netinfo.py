"""What a node asks about the networks: many at once, so that none who is slow makes an admin wait for all the others."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from pcocc_runtime import netfacts, netinfo
from pcocc_runtime.netfacts import NetworkFacts
from pcocc_runtime.system import reach, resolver
from tests.unit import netjob

FACTS = netfacts.parse_node(netjob.node(1))
LAN = FACTS.networks[0]
Dns = Callable[[int, dict[str, list[str] | None]], None]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Dns:
    """A DNS server that answers only when as many questions as told wait for it together."""

    def start(together: int, changed: dict[str, list[str] | None]) -> None:
        barrier = threading.Barrier(together)
        right = {f"vm{rank}.vcluster": f"10.200.0.{rank + 1}" for rank in range(4)}
        right |= {address: name for name, address in right.items()}

        def answer(_server: str, asked: str) -> list[str] | None:
            barrier.wait(20)
            return changed.get(asked, [right[asked]])

        monkeypatch.setattr(resolver, "find_addresses", answer)
        monkeypatch.setattr(resolver, "find_names", answer)

    return start


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, []),
        ({"vm1.vcluster": [], "10.200.0.4": ["a", "b"]}, [
            "vm1.vcluster is not known, it should be 10.200.0.2", "10.200.0.4 is a and b, it should be vm3.vcluster",
        ]),
        ({"vm1.vcluster": None, "10.200.0.4": ["a"]}, None),
    ],
)  # fmt: skip
def test_names_are_asked_at_once(dns: Dns, changed: dict[str, list[str] | None], found: list[str] | None) -> None:
    dns(6, changed)  # vm0, vm1 and the last VM, both ways
    assert netinfo.check_names(LAN) == found


def test_networks_are_probed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(2)

    def probe(_node: netfacts.NodeFacts, network: NetworkFacts, _target: str | None) -> dict[str, int]:
        barrier.wait(20)
        return {"network": network.index}

    two = replace(FACTS, networks=(LAN, replace(LAN, index=1)))
    monkeypatch.setattr(netfacts, "parse_node", lambda tree: two)
    monkeypatch.setattr(netinfo, "probe", probe)
    monkeypatch.setattr(reach, "listens_udp", lambda port: True)
    assert netinfo.check({}, None) == {"probes": [{"network": 0}, {"network": 1}], "dhcp": True}

"""What a node asks about the networks: many at once, so that none who is slow makes an admin wait for all the others."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents.node import NodeFacts, RoutedFacts
from pcocc_runtime.networks.kinds import EthernetNetwork
from pcocc_runtime.observe import node_task, probes, resolver
from pcocc_runtime.observe.facts import Answer, ReachReport
from tests.fake_node import make_facts
from tests.unit.observe import netjob

FACTS = netjob.facts(1)
LAN = next(one for one in FACTS.networks if isinstance(one, RoutedFacts))
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
    assert node_task.check_names(FACTS, LAN) == found


def test_states_are_what_keepers_wrote_and_ends_are_told_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "job_dir", lambda job: tmp_path)
    wrote = {
        "vm0/ready": '{"seconds": 3.2}', "vm0/ended": '{"reason": "guest-shutdown"}', "vm1/ready": '{"seconds": 2}', "vm2/console.log": "",
        "vm4/ended": '{"reason": "killed"}', "vm5/ended": '{"reas', "vm6/ready": "{}", "vmx/ended": "{}", "vm7/ended": '{"reason": 7}',
        "vm8/silent": '{"seconds": 300}', "vm9/silent": '{"seconds": 300}', "vm9/ended": '{"reason": "killed"}',
        "vm10/ended": '{"reason": "killed"}',
    }  # fmt: skip
    for name, text in wrote.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    layout = {"n1": (0, 1, 2, 3, 8, 9), "n2": (4, 5, 6, 7)}
    assert node_task.read_states(make_facts({"bare": ()}, {"bare": 10}, layout=layout)) == {
        0: "ended: its guest powered it off", 1: "up", 2: "booting", 3: "not started", 4: "ended: its QEMU was killed", 7: "ended: 7",
        8: "silent: no answer within 300 s", 9: "ended: its QEMU was killed",
    }  # fmt: skip


def test_networks_are_probed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(2)

    def probe(_node: NodeFacts, network: RoutedFacts, _target: str | None) -> ReachReport:
        barrier.wait(20)
        return replace(netjob.GOOD, network=network.index)

    networks = [EthernetNetwork("one"), EthernetNetwork("flat", layer="L2"), EthernetNetwork("two")]
    node = make_facts({"all": ("one", "flat", "two")}, {"all": 4}, networks)
    monkeypatch.setattr(node_task, "probe", probe)
    monkeypatch.setattr(probes, "listens_udp", lambda port: True)
    found = node_task.check_networks(Answer(node, {}, {}), None)
    assert ([one.network for one in found.reports], found.dhcp) == ([0, 2], True)

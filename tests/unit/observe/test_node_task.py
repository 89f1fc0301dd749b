"""What a node asks about the networks: many questions at once, so that a slow answer does not delay all the others."""

import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents.node import NodeFacts, RoutedFacts
from pcocc_runtime.documents.node_answer import NodeAnswer, ReachReport
from pcocc_runtime.documents.vm_state import VmState, encode_state
from pcocc_runtime.networks.kinds import EthernetNetwork
from pcocc_runtime.observe import node_task, probes, resolver
from pcocc_runtime.system.watch import start_watch
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
            "vm1.vcluster is not known, but should be 10.200.0.2", "10.200.0.4 is a and b, but should be vm3.vcluster",
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
        0: VmState("ended", 3.2, "guest-shutdown"), 1: VmState("up", 2), 4: VmState("ended", reason="killed"),
        6: VmState("up", 1), 7: VmState("ended", reason="as no one knows"), 8: VmState("silent", 300),
    }  # fmt: skip
    for rank, state in wrote.items():
        (tmp_path / f"vm{rank}").mkdir()
        (tmp_path / f"vm{rank}/state").write_text(encode_state(state))
    for name, text in {
        "vm2/console.log": "",
        "vm5/state": '{"sta',
        "vm9/state": '{"state": "up", "seconds": "x"}', "vmx/state": "{}",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    layout = {"n1": (0, 1, 2, 3, 8, 9), "n2": (4, 5, 6, 7)}
    assert node_task.read_states(make_facts({"bare": ()}, {"bare": 10}, layout=layout)) == {
        0: "ended: its guest powered it off", 1: "up", 2: "booting", 3: "not started", 4: "ended: its QEMU was killed",
        7: "ended: as no one knows", 8: "silent: no answer within 300 s",
        9: "unknown: the file with the VM's state cannot be read: seconds is not of the type float",
    }  # fmt: skip


def test_a_vm_boots_only_while_somebody_lives_who_would_tell_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "job_dir", lambda job: tmp_path)
    node = make_facts({"bare": ()}, {"bare": 1})
    (tmp_path / "vm0").mkdir()
    fd = start_watch(tmp_path / "vm0")
    # the launcher's lock goes on with what it starts
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[fd]) as keeper:
        os.close(fd)
        assert node_task.read_states(node) == {0: "booting"}
        keeper.kill()
        keeper.wait()
        assert node_task.read_states(node) == {0: "unwatched: the process that watches it has ended"}
    (tmp_path / "vm0/state").write_text(encode_state(VmState("up", 2)))
    assert node_task.read_states(node) == {0: "up"}


def test_networks_are_probed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(2)

    def probe(_node: NodeFacts, network: RoutedFacts, _target: str | None) -> ReachReport:
        barrier.wait(20)
        return replace(netjob.GOOD, network=network.index)

    networks = [EthernetNetwork("one"), EthernetNetwork("flat", layer="L2"), EthernetNetwork("two")]
    node = make_facts({"all": ("one", "flat", "two")}, {"all": 4}, networks)
    monkeypatch.setattr(node_task, "probe", probe)
    monkeypatch.setattr(probes, "listens_udp", lambda port: True)
    found = node_task.check_networks(NodeAnswer(node, {}, {}), None)
    assert ([one.network for one in found.reports], found.dhcp) == ([0, 2], True)

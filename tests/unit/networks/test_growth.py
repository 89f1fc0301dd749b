"""What root does for a job's networks on a node grows with the taps, and the processes that it starts only with the networks."""

from collections import Counter
from ipaddress import IPv4Network

import pytest

from pcocc_runtime.documents.boot_step import parse_boot_step
from pcocc_runtime.documents.work import Act
from pcocc_runtime.networks import acts
from pcocc_runtime.networks.kinds import EthernetNetwork
from pcocc_runtime.networks.plan import plan_networks

PROGRAMS = ("nft", "ip", "bridge", "tc")


def make_acts(vms: int, networks: int) -> tuple[Act, ...]:
    names = tuple(f"n{number}" for number in range(networks))
    specs = {
        name: EthernetNetwork(name, int_network=IPv4Network(f"10.{number}.0.0/16"), domain_name=f"{name}.x")
        for number, name in enumerate(names)
    }
    text = f"job 12\nstep 0\nuid 1\ngid 1\nstepd 1\nindex 0\nlayout n1 0-{vms - 1}\nlayout n2 {vms}-{vms + 7}\n"
    step = parse_boot_step(f"{text}sets all:{vms + 8}\nend\n".splitlines())
    host = acts.HostFacts(peers={"n2": "192.0.2.2"}, queues=True, tc=True)
    return acts.plan_acts(12, plan_networks(step, specs, {"all": names}), None, host)


def count_words(made: tuple[Act, ...]) -> Counter[str]:
    """Return how many words each program is told in all: an nft set has all its elements in a line."""
    return Counter({kind: sum(len(act.text.split()) for act in made if act.kind == kind) for kind in PROGRAMS})


@pytest.mark.parametrize("networks", [1, 3, 9])
def test_more_vms_start_no_more_programs(networks: int) -> None:
    counts = [Counter(act.kind for act in make_acts(vms, networks)) for vms in (1, 8, 64)]
    assert counts[0] == counts[1] == counts[2]
    assert counts[0]["dnsmasq"] == networks and counts[0]["tc"] == 1


def test_more_networks_start_no_more_programs_but_their_servers() -> None:
    counts = [Counter(act.kind for act in make_acts(64, networks)) for networks in (1, 3, 9)]
    assert len({tuple(one[kind] for kind in PROGRAMS) for one in counts}) == 1
    assert [one["dnsmasq"] for one in counts] == [1, 3, 9]


def test_what_programs_are_told_grows_with_the_taps() -> None:
    """No tap is told more of than the second one of its network; routes to VMs here are few for all of them."""
    told = {shape: count_words(make_acts(*shape)) for shape in ((1, 1), (2, 1), (64, 1), (1, 9), (2, 9), (64, 9))}
    for kind in PROGRAMS:
        for networks in (1, 9):
            tap = told[2, networks][kind] - told[1, networks][kind]
            assert told[64, networks][kind] - told[1, networks][kind] <= 63 * tap, kind
        one, nine = (told[2, networks][kind] - told[1, networks][kind] for networks in (1, 9))
        assert nine == 9 * one, kind


def test_no_tap_has_qdiscs_for_queues_that_it_does_not_have() -> None:
    """A tap of several queues has 256 to the kernel, and would get a qdisc for each of them as it comes up."""
    made = make_acts(2, 3)
    where = [index for index, act in enumerate(made) if act.kind == "tc"]
    told = made[where[0]].text.splitlines()
    taps = [f"tap{rank}n{network}" for network in range(3) for rank in range(2)]
    assert len(where) == 1 and told == [f"qdisc replace dev {tap} root noqueue" for tap in taps]
    before, after = ("".join(act.text for act in part) for part in (made[: where[0]], made[where[0] + 1 :]))
    assert all(f"tuntap add dev {tap} mode tap user 0 vnet_hdr multi_queue" in before for tap in taps)
    assert all(f"link set {tap} " in after and f"link set {tap} " not in before for tap in taps)

"""From a step, the site's files and a made-up /sys to the functions of VMs; tests/netns/test_functions.py runs the whole
helper.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pcocc_runtime.addressing import bridged_mac
from pcocc_runtime.documents.boot_step import BootStep, parse_boot_step
from pcocc_runtime.documents.layout import NodeLayout
from pcocc_runtime.documents.node import FunctionFacts
from pcocc_runtime.documents.work import Act, ChargeWanted
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks import host_functions
from pcocc_runtime.networks.step_functions import describe_functions, plan_function_acts
from pcocc_runtime.node import giving
from pcocc_runtime.node.giving import find_step_functions
from pcocc_runtime.site.site import Site, read_site
from tests.fake_functions import write_card, write_ethernet, write_functions

FILES = {
    "pcocc": "devices: {'gpu:a100': {ids: ['10de:20b2']}, nvme: {addresses: ['5e:00.0', 'd8:00.0']}}",
    "networks": "lan: {type: ethernet}\n"
    "ib: {type: infiniband, settings: {host-device: mlx5_0, min-pkey: '0x2000', max-pkey: '0x2003'}}\n"
    "hca: {type: host-infiniband, settings: {host-device: mlx5_0}}\n"
    "wire: {type: sriov-ethernet, settings: {host-device: ens1f0, vlan: 100, rate: 5000}}\n"
    "flat: {type: sriov-ethernet, settings: {host-device: ens1f0, mtu: 1400}}\n"
    "pci: {type: genericpci, settings: {host-device-addrs: ['18:00.0'], host-driver: x}}\n",
    "resources": "plain: {networks: [lan]}\nhpc: {networks: [lan, ib]}\nhost: {networks: [hca]}\n"
    "ai: {networks: [lan], devices: {'gpu:a100': 2, nvme: 1}}\nold: {networks: [pci]}\n"
    "fast: {networks: [lan, wire]}\nboth: {networks: [wire, flat, lan]}\n",
}
GRES = "gpu:a100:2(IDX:0,1),nic:2(IDX:1-2),nvme:1(IDX:0),pci:1(IDX:0)"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with devices of every kind, on a node with two GPUs of a NUMA node each."""
    for name, text in FILES.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    sys = tmp_path / "sys"
    write_functions(sys, 4)
    write_ethernet(sys, 3)
    for place, (bus, kind) in enumerate((("3b", "10de:20b2"), ("af", "10de:20b2"), ("5e", "144d:a80a"), ("18", "1af4:1041"))):
        write_card(sys, f"0000:{bus}:00.0", kind, 60 + place, numa=int(bus == "af"))
    for name in ("read_devices", "read_known", "read_stocks"):
        monkeypatch.setattr(giving, name, partial(getattr(host_functions, name), sys=sys))
    return read_site(tmp_path)


def step(sets: str, gres: str | None = GRES, licences: str = "pkey2001") -> BootStep:
    count = sum(int(part.split(":")[1]) for part in sets.split(","))
    told = f"account a\npartition p\nqos \nlicenses {licences}\ngres n1 {gres}\n"
    text = f"job 12\nstep 0\nuid 2001\ngid 2001\nstepd 9\nindex 0\nlayout n1 0-{count - 1}\nsets {sets}\n"
    return parse_boot_step(f"{text}{'' if gres is None else told}end\n".splitlines())


def facts(one: BootStep, site: Site) -> dict[int, list[tuple[str, str]]]:
    told = describe_functions(find_step_functions(one, site))
    return {rank: [(one.source, one.address[5:]) for one in every] for rank, every in told.items()}


def test_a_step_without_devices_asks_nothing_of_slurmctld(site: Site) -> None:
    found = find_step_functions(step("plain:2", None), site)
    acts = (Act("ip", False, "x"),)
    assert describe_functions(found) == {} and plan_function_acts(found, 2001, acts) == acts


@pytest.mark.parametrize("sets", ["hpc:1", "ai:1", "old:1", "host:1", "plain:1:nvme::1"])
def test_who_has_devices_must_be_known_to_slurmctld(site: Site, sets: str) -> None:
    with pytest.raises(ChargeWanted):
        find_step_functions(step(sets, None), site)


def test_vms_have_what_their_resource_sets_and_templates_say(site: Site) -> None:
    assert facts(step("ai:1"), site) == {0: [("gpu:a100", "3b:00.0"), ("gpu:a100", "af:00.0"), ("nvme", "5e:00.0")]}
    assert facts(step("plain:1,hpc:1,host:1,old:1"), site) == {
        1: [("ib", "81:00.2")], 2: [("hca", "81:00.3")], 3: [("pci", "18:00.0")],
    }
    assert facts(step("plain:1:gpu:a100:1,hpc:1:gpu:a100:1:nvme::1"), site) == {
        0: [("gpu:a100", "3b:00.0")], 1: [("ib", "81:00.2"), ("gpu:a100", "af:00.0"), ("nvme", "5e:00.0")],
    }


def test_numa_nodes_keys_and_guids_are_told(site: Site) -> None:
    told = describe_functions(find_step_functions(step("hpc:1:gpu:a100:2,host:1"), site))
    assert told == {
        0: (
            FunctionFacts("ib", "0000:81:00.2", 1, 0x2001, "c2cc:2001:0000:0001"),
            FunctionFacts("gpu:a100", "0000:3b:00.0", 0), FunctionFacts("gpu:a100", "0000:af:00.0", 1),
        ),
        1: (FunctionFacts("hca", "0000:81:00.3", 1, None, "ee0d:9a03:07f1:2af4"),),
    }  # fmt: skip


def test_what_undoes_it_is_kept_first_and_ip_runs_no_more_often(site: Site) -> None:
    acts = [Act("nft", False, "x"), Act("ip", True, "inside\n"), Act("ip", False, "outside\n"), Act("ip", False, "more\n")]
    found = find_step_functions(step("hpc:1:nvme::1,host:1"), site)
    given, *rest = plan_function_acts(found, 2001, acts)
    kept = json.loads(given.text)
    assert (given.kind, kept["uid"], kept["devices"]) == ("devices", 2001, ["/dev/vfio/22", "/dev/vfio/23", "/dev/vfio/62"])
    words = ["state disable", "node_guid", "port_guid"]
    assert [line.split(" vf ")[1][:11] for line in kept["ip"].splitlines()] == [
        f"{number} {word}"[:11] for number in (1, 2) for word in words
    ]
    joining = rest[2].text.splitlines()
    assert len(joining) == 9 and joining[-1] == "outside" and rest[:2] == acts[:2] and rest[3] == acts[3]
    assert plan_function_acts(found, 2001, acts[:2])[1].text.splitlines() == joining[:-1]


MACS = {(12, rank, place): bridged_mac(12, rank, place) for rank in (0, 1) for place in (62, 63)}


def test_functions_of_ethernet_are_told_their_vms_addresses_and_vlan(site: Site) -> None:
    """nic counts the functions of both devices: the four of mlx5_0 come first, as in gres.conf."""
    found = find_step_functions(step("fast:1,both:1", "nic:3(IDX:4-6)"), site)
    assert describe_functions(found) == {
        0: (FunctionFacts("wire", "0000:91:10.0", 1, None, None, MACS[12, 0, 63], 1500),),
        1: (
            FunctionFacts("wire", "0000:91:10.1", 1, None, None, MACS[12, 1, 63], 1500),
            FunctionFacts("flat", "0000:91:10.2", 1, None, None, MACS[12, 1, 62], 1400),
        ),
    }  # fmt: skip
    given, joining, rest = plan_function_acts(found, 2001, (Act("ip", False, "outside\n"), Act("ip", True, "inside\n")))
    lines = joining.text.splitlines()
    assert lines[:5] == [
        f"link set dev ens1f0 vf 0 {what}"
        for what in ("vlan 100", "spoofchk on", "trust off", "min_tx_rate 0 max_tx_rate 5000", f"mac {MACS[12, 0, 63]}")
    ]
    assert [line.partition("vf 2 ")[2] for line in lines[10:]] == [
        "vlan 0", "spoofchk on", "trust off", f"mac {MACS[12, 1, 62]}", "",
    ]
    assert lines[-1] == "outside" and rest.text == "inside\n"
    assert json.loads(given.text)["ip"].splitlines() == [
        f"link set dev ens1f0 vf {number} {what}"
        for number, most in ((0, 3), (1, 3), (2, 2))
        for what in ("mac 00:00:00:00:00:00", "vlan 0", "min_tx_rate 0 max_tx_rate 0")[:most]
    ]
    assert json.loads(given.text)["devices"] == ["/dev/vfio/31", "/dev/vfio/32", "/dev/vfio/33"]


def test_no_two_jobs_vms_or_networks_have_an_address_in_common(site: Site) -> None:
    every = [
        mac
        for job in (12, 13)
        for one in find_step_functions(replace(step("both:1", "nic:2(IDX:4-5)"), job=job), site).ethernet.values()
        for mac in (one.mac, bridged_mac(job, 0, 0), bridged_mac(job, 1, 0))
    ]
    assert len({*every}) == 8 and all(int(one[:2], 16) & 3 == 2 for one in every)  # of the two bridges, each twice


def test_of_devices_that_are_on_no_fabric_ip_is_told_nothing(site: Site) -> None:
    acts = (Act("ip", False, "outside\n"),)
    given, *rest = plan_function_acts(find_step_functions(step("ai:1"), site), 2001, acts)
    assert json.loads(given.text) == {"uid": 2001, "devices": ["/dev/vfio/60", "/dev/vfio/61", "/dev/vfio/62"], "ip": ""}
    assert tuple(rest) == acts


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (step("ai:2"), "the job has 2 devices of GRES gpu:a100 on n1, but its VMs there need 4"),
        (step("plain:1:gpu:h100:1"), "there is no device 'gpu:h100'"),
        (step("host:3"), "the job has 2 devices of GRES nic on n1, but its VMs there need 3"),
        (step("hpc:1", licences=""), "the job has no licence of a key of network 'ib'"),
        (step("ai:1", "gpu:a100:2(IDX:0-1),nvme:1(IDX:1)"), "Slurm gives the job function number 2 of nvme on n1, but"),
    ],
)
def test_what_is_not_as_it_must_be_is_told(site: Site, one: BootStep, said: str) -> None:
    with pytest.raises(NodeError) as told:
        find_step_functions(one, site)
    assert told.value.message.startswith(said)


@pytest.mark.parametrize(
    ("settings", "sets", "said"),
    [
        ("host-device: ens1f0, mtu: 9000", "fast:1", "network 'wire' has MTU 9000, but ens1f0 of n1 only 1500"),
        ("host-device: ens9", "fast:1", "has no Ethernet device with an interface ens9"),
        ("host-device: mlx5_0", "fast:1", "has no Ethernet device with an interface mlx5_0"),
        ("host-device: ens1f0", "fast:16385", "network 'wire' is the site's own, where a job can have 16384 VMs"),
        ("host-device: ens1f0", "fast:1", "the job has 0 devices of GRES nic on n1, but its VMs there need 1"),
    ],
)
def test_ethernet_devices_that_do_not_fit_are_told(
    site: Site, tmp_path: Path, settings: str, sets: str, said: str
) -> None:
    path = tmp_path / "networks.yaml"
    path.write_text(path.read_text().replace("host-device: ens1f0, vlan: 100, rate: 5000", settings))
    count = int(sets.partition(":")[2])
    one = step(sets, "" if said.startswith("the job") else "nic:1(IDX:4)")
    if count > 1:
        one = replace(one, nodes=(NodeLayout("n1", (0,)), NodeLayout("n2", tuple(range(1, count)))))
    with pytest.raises(NodeError) as told:
        find_step_functions(one, read_site(tmp_path))
    assert said in told.value.message

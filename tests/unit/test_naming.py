"""Two live jobs never share a name or a number that could make them meet.

Where a test reads the job back out of what was made from it, no two jobs can have the same: what has an inverse is injective.
"""

import re
from ipaddress import IPv4Network

from hypothesis import example, given
from hypothesis import strategies as st

from pcocc_runtime import addressing, naming

jobs = st.integers(1, naming.MAX_JOB_ID)
networks = st.integers(0, naming.MAX_NETWORKS - 1)
ranks = st.integers(0, naming.MAX_RANK)
bridged_ranks = st.integers(0, addressing.MAX_BRIDGED_RANK)
prefixes = st.from_regex(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{addressing.MAX_PORT_PREFIX - 1}}}", fullmatch=True)

SLURMS_LAST = 0x03FF0000  # MAX_JOB_ID of slurm.h


def number_of(mac: str) -> int:
    assert re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", mac)
    return int(mac.replace(":", ""), 16)


def test_every_job_id_of_slurm_is_in_range() -> None:
    assert naming.MAX_JOB_ID >= SLURMS_LAST


@given(jobs, networks)
@example(1, 0)
@example(0xFFFFFF, 63)
@example(0x1000000, 0)
@example(naming.MAX_JOB_ID, 63)
def test_vni_and_port_belong_to_one_job_and_network(job: int, network: int) -> None:
    vni, port = addressing.vxlan_vni(job), addressing.vxlan_port(job, network)
    assert 0 <= vni < 1 << 24
    assert 24832 <= port <= 25087
    place = port - naming.VXLAN_PORT_BASE
    assert (vni | (place & 3) << 24, place >> 2) == (job, network)


@given(jobs, networks, bridged_ranks)
@example(1, 0, 0)
@example(naming.MAX_JOB_ID, 63, addressing.MAX_BRIDGED_RANK)
def test_a_mac_on_a_bridge_of_the_site_belongs_to_one_vm_of_one_job(job: int, network: int, rank: int) -> None:
    number = number_of(addressing.bridged_mac(job, rank, network))
    first = number >> 40
    assert first & 0b11 == 0b10, "one station's, and locally administered"
    bits = (first >> 2) << 40 | number & 0xFFFFFFFFFF
    assert (bits >> 20, (bits >> 14) & 0x3F, bits & 0x3FFF) == (job, network, rank)


@given(networks, ranks)
@example(63, naming.MAX_RANK)
def test_a_mac_of_a_private_network_belongs_to_one_vm(network: int, rank: int) -> None:
    number = number_of(addressing.vm_mac("52:54:00", rank, network))
    assert (number >> 24, (number >> 18) & 0x3F, number & 0x3FFFF) == (0x525400, network, rank)


@given(networks, ranks)
def test_the_nodes_macs_are_apart_from_the_vms(network: int, index: int) -> None:
    number = number_of(addressing.node_mac(index, network))
    assert (number >> 24, (number >> 18) & 0x3F, number & 0x3FFFF) == (
        number_of(addressing.NODE_MAC_PREFIX + ":00:00:00") >> 24,
        network,
        index,
    )
    assert (number >> 40) & 0b11 == 0b10


@given(networks)
def test_the_gateways_mac_is_apart_from_the_vms_and_the_nodes(network: int) -> None:
    number = number_of(addressing.gateway_mac(network))
    assert number & 0xFFFFFF == network and (number >> 40) & 0b11 == 0b10
    assert addressing.gateway_mac(network)[:8] not in (addressing.NODE_MAC_PREFIX, "52:54:00")


@given(networks, ranks)
@example(63, naming.MAX_RANK)
def test_devices_of_a_namespace_have_names_of_their_own(network: int, rank: int) -> None:
    names = addressing.tap_name(rank, network), addressing.bridge_name(network), addressing.vxlan_name(network)
    assert all(len(name) <= addressing.MAX_INTERFACE_NAME for name in names)
    read = [re.fullmatch(form, name) for form, name in zip((r"tap(\d+)n(\d+)", r"br(\d+)", r"vx(\d+)"), names, strict=True)]
    assert [tuple(map(int, one.groups())) for one in read if one] == [(rank, network), (network,), (network,)]


@given(prefixes, jobs, networks)
@example("x", naming.MAX_JOB_ID, 63)
@example("seven77", 1, 0)
def test_a_port_on_a_bridge_of_the_site_belongs_to_one_job_and_network(prefix: str, job: int, network: int) -> None:
    """Whatever the prefixes are: one may be the beginning of another."""
    name = addressing.bridged_port(prefix, job, network)
    assert len(name) <= addressing.MAX_INTERFACE_NAME and name.startswith(prefix)
    assert (int(name[-8:-2], 36), int(name[-2:])) == (job, network)
    assert len(name) == len(prefix) + 8


@given(jobs)
@example(naming.MAX_JOB_ID)
def test_namespaces_and_directories_belong_to_one_job(job: int) -> None:
    assert int(naming.netns_name(job).removeprefix("pcocc-")) == job
    assert int(naming.host_table(job).removeprefix("pcocc-")) == job
    uplink = naming.uplink_name(job)
    assert int(uplink.removeprefix(naming.OWN_PREFIX)) == job and len(uplink) <= addressing.MAX_INTERFACE_NAME
    assert naming.job_dir(job).parent == naming.RUN_DIR and int(naming.job_dir(job).name) == job


def test_addresses_of_vms_nodes_and_gateway_are_distinct_when_there_is_room() -> None:
    network = IPv4Network("10.0.0.0/28")
    assert addressing.room_for(network, 10, 3)
    assert not addressing.room_for(network, 11, 3)
    everyone = [addressing.vm_address(network, rank) for rank in range(10)]
    everyone += [addressing.node_address(network, index) for index in range(3)]
    everyone.append(addressing.gateway_address(network))
    assert len(set(everyone)) == 14
    assert all(address in network for address in everyone)
    assert network.network_address not in everyone and network.broadcast_address not in everyone


@given(st.integers(8, 29), st.data())
def test_addresses_are_distinct_in_networks_of_every_size(length: int, data: st.DataObject) -> None:
    network = IPv4Network((10 << 24, length))
    vms = data.draw(st.integers(1, min(network.num_addresses - 4, naming.MAX_RANK)))
    nodes = data.draw(st.integers(1, min(vms, network.num_addresses - 3 - vms)))
    assert addressing.room_for(network, vms, nodes)
    last_vm, last_node = addressing.vm_address(network, vms - 1), addressing.node_address(network, nodes - 1)
    assert network.network_address < addressing.vm_address(network, 0) <= last_vm < last_node
    assert last_node <= addressing.node_address(network, 0) < addressing.gateway_address(network) < network.broadcast_address


@given(st.integers(0, naming.UPLINK_SLOTS - 1))
@example(naming.UPLINK_SLOTS - 1)
def test_a_pair_of_uplink_addresses_belongs_to_one_slot(slot: int) -> None:
    host, inside = addressing.uplink_addresses(slot)
    assert host in naming.UPLINK_NETWORK and inside in naming.UPLINK_NETWORK
    first = int(naming.UPLINK_NETWORK.network_address)
    assert [divmod(int(one) - first, 2) for one in (host, inside)] == [(slot, 0), (slot, 1)]

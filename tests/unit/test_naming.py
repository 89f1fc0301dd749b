"""Two live jobs never share a name or a number that could make them meet."""

from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime import naming

jobs = st.integers(1, naming.MAX_JOB_ID)
networks = st.integers(0, naming.MAX_NETWORKS - 1)
ranks = st.integers(0, naming.MAX_RANK)


@given(jobs, networks, jobs, networks)
def test_tunnels_of_two_jobs_or_networks_differ(job: int, network: int, other: int, second: int) -> None:
    one = (naming.vxlan_vni(job), naming.vxlan_port(job, network))
    two = (naming.vxlan_vni(other), naming.vxlan_port(other, second))
    assert (one == two) == ((job, network) == (other, second))


@given(jobs, networks)
def test_tunnel_numbers_are_valid(job: int, network: int) -> None:
    assert 0 <= naming.vxlan_vni(job) < 1 << 24
    assert 24832 <= naming.vxlan_port(job, network) <= 25087


@given(ranks, networks, ranks, networks)
def test_macs_differ_between_vms_and_networks(rank: int, network: int, other: int, second: int) -> None:
    one, two = naming.vm_mac("52:54:00", rank, network), naming.vm_mac("52:54:00", other, second)
    assert (one == two) == ((rank, network) == (other, second))
    assert one != naming.node_mac(other & 0x3FFFF, second)


@given(ranks, networks)
def test_interface_names_fit_the_kernel(rank: int, network: int) -> None:
    for name in (naming.tap_name(rank, network), naming.bridge_name(network), naming.vxlan_name(network)):
        assert len(name) <= 15


@given(jobs, jobs)
def test_namespaces_and_directories_differ(job: int, other: int) -> None:
    assert (naming.netns_name(job) == naming.netns_name(other)) == (job == other)
    assert (naming.job_dir(job) == naming.job_dir(other)) == (job == other)


def test_addresses_of_vms_nodes_and_gateway_are_distinct_when_there_is_room() -> None:
    network = IPv4Network("10.0.0.0/28")
    assert naming.room_for(network, 10, 3)
    assert not naming.room_for(network, 11, 3)
    everyone = [naming.vm_address(network, rank) for rank in range(10)]
    everyone += [naming.node_address(network, index) for index in range(3)]
    everyone.append(naming.gateway_address(network))
    assert len(set(everyone)) == 14
    assert all(address in network for address in everyone)
    assert network.network_address not in everyone and network.broadcast_address not in everyone

"""Devices and functions as /sys has them."""

from pathlib import Path

import pytest

from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.functions import Function
from pcocc_runtime.networks.host_functions import read_devices, read_known, read_stocks
from pcocc_runtime.networks.kinds import DevicePool, GenericPci, HostInfiniband, SriovEthernet
from tests.fake_functions import write_card, write_ethernet, write_functions

HCA, NIC = HostInfiniband("a", "mlx5_0"), SriovEthernet("b", "ens1f0")


def test_functions_are_read_in_their_order(tmp_path: Path) -> None:
    write_functions(tmp_path, 11)
    [found] = read_devices([HCA], tmp_path).values()
    places = [f"0000:81:{(number + 1) // 8:02x}.{(number + 1) % 8}" for number in range(11)]
    assert found.interface == "ib0" and found.functions == tuple(
        Function(number, place, "vfio-pci", str(21 + number), (), 1) for number, place in enumerate(places)
    )


def test_a_function_may_be_free_or_share_its_group(tmp_path: Path) -> None:
    path = write_functions(tmp_path, 2)
    (path / "virtfn0/driver").unlink()
    (path / "virtfn1/iommu_group/devices/0000:82:00.0").mkdir()
    first, second = read_devices([HCA], tmp_path)["mlx5_0"].functions
    assert first.driver is None and first.others == () and second.others == ("0000:82:00.0",)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("rm -r class/infiniband", "has no InfiniBand device mlx5_0"),
        (
            "echo 1 > class/infiniband/mlx5_0/device/net/ib0/type",
            "mlx5_0 on .* has no IP interface, which Linux needs to set GUIDs",
        ),
        ("rm class/infiniband/mlx5_0/device/virtfn*", "mlx5_0 on .* has no virtual functions"),
        (
            "rm class/infiniband/mlx5_0/device/virtfn1/iommu_group",
            "0000:81:00.2 cannot be given to VMs: .* has no IOMMU, or it is turned off",
        ),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, broken: str, said: str) -> None:
    import subprocess

    write_functions(tmp_path, 2)
    subprocess.run(["sh", "-ec", broken], cwd=tmp_path, check=True)
    with pytest.raises(NodeError, match=said):
        read_devices([HCA], tmp_path)


def test_a_device_that_did_not_come_back_from_a_reset_is_known_by_its_status(tmp_path: Path) -> None:
    path = write_functions(tmp_path, 3)
    (path / "virtfn1/config").write_bytes(b"\xff" * 64)
    (path / "virtfn2/config").unlink()
    assert [one.answers for one in read_devices([HCA], tmp_path)["mlx5_0"].functions] == [True, False, True]


def test_an_ethernet_device_is_found_by_its_interface(tmp_path: Path) -> None:
    write_ethernet(tmp_path, 2, 9000)
    write_functions(tmp_path, 1)
    hca, found = read_devices([HCA, NIC], tmp_path).values()
    assert (found.interface, found.mtu, found.guid, hca.interface) == ("ens1f0", 9000, 0, "ib0")
    assert [(one.number, one.address, one.group) for one in found.functions] == [
        (0, "0000:91:10.0", "31"), (1, "0000:91:10.1", "32"),
    ]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("rm class/net/ens1f0", "has no Ethernet device with an interface ens1f0"),
        ("rm class/net/ens1f0/device", "has no Ethernet device with an interface ens1f0"),
        ("echo 32 > class/net/ens1f0/type", "has no Ethernet device with an interface ens1f0"),
        ("echo 0x1002 > class/net/ens1f0/flags", "ens1f0 on .* is down, and so are the links of its functions"),
        ("rm class/net/ens1f0/device/virtfn*", "ens1f0 on .* has no virtual functions"),
    ],
)
def test_what_an_ethernet_device_lacks_is_told(tmp_path: Path, broken: str, said: str) -> None:
    import subprocess

    write_ethernet(tmp_path, 2)
    subprocess.run(["sh", "-ec", broken], cwd=tmp_path, check=True)
    with pytest.raises(NodeError, match=said):
        read_devices([NIC], tmp_path)
    found, [fault] = read_known([NIC], tmp_path)
    assert found == {} and said[-12:] in fault.message


GPU, DISK = "10de:20b2", "144d:a80a"


def write_cards(sys: Path) -> None:
    for bus, kind, numa in (("3b", GPU, 0), ("5e", DISK, 0), ("af", GPU, 1), ("18", DISK, 1)):
        write_card(sys, f"0000:{bus}:00.0", kind, int(bus, 16), numa=numa)


def test_a_pool_has_the_devices_of_its_addresses_and_of_its_kinds(tmp_path: Path) -> None:
    write_cards(tmp_path)
    pools = (
        DevicePool("gpu:a100", ids=("10DE:20B2",)),
        DevicePool("nvme", ("5E:00.0", "0000:99:00.0"), (DISK,)),
        DevicePool("nvme:none", ids=("1af4:1041",)),
    )
    network = GenericPci("disks", ("0000:18:00.0",), "nvme", "nvme:fast")
    found = read_stocks([network], pools, {}, tmp_path)
    assert [(one.name, one.gres, [each.address for each in one.functions]) for one in found] == [
        ("network disks", "nvme:fast", ["0000:18:00.0"]),
        ("gpu:a100", "gpu:a100", ["0000:3b:00.0", "0000:af:00.0"]),
        ("nvme", "nvme", ["0000:5e:00.0", "0000:18:00.0"]),
        ("nvme:none", "nvme:none", []),
    ]
    assert found[1].functions[1] == Function(1, "0000:af:00.0", "vfio-pci", str(0xAF), (), 1)


def test_a_device_of_networks_is_a_stock_once(tmp_path: Path) -> None:
    write_functions(tmp_path, 2)
    networks = (HostInfiniband("a", "mlx5_0", "nic:x"), HostInfiniband("b", "mlx5_0", "nic:x"), HostInfiniband("c", "mlx5_1"))
    devices, [fault] = read_known(networks, tmp_path)
    assert "has no InfiniBand device mlx5_1" in fault.message
    [found] = read_stocks(networks, (), devices, tmp_path)
    assert (found.name, found.gres, len(found.functions)) == ("mlx5_0", "nic:x", 2)
    assert devices["mlx5_0"].guid == 0xEC0D_9A03_00F1_2AF4


def test_a_bridge_in_the_group_stays_the_kernels_and_others_are_told(tmp_path: Path) -> None:
    write_card(tmp_path, "0000:3b:00.0", GPU, 5)
    write_card(tmp_path, "0000:3a:00.0", "8086:2030", 5, "pcieport").joinpath("class").write_text("0x060400\n")
    pool = DevicePool("gpu", ids=(GPU,))
    assert read_stocks((), [pool], {}, tmp_path)[0].functions[0].others == ()
    write_card(tmp_path, "0000:3b:00.1", "10de:1aef", 5, "snd_hda_intel")
    assert read_stocks((), [pool], {}, tmp_path)[0].functions[0].others == ("0000:3b:00.1",)

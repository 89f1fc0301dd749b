"""What the machine has only after a cold start: an NVMe controller, whose state QEMU cannot save."""

import pytest

from tests.node.node import Node


@pytest.fixture
def cold(node: Node) -> Node:
    """The machine after a cold start."""
    if node.run("test -e /sys/class/nvme/nvme0").returncode:
        node.power_cycle()
    return node


def test_an_nvme_controller_with_virtual_functions_is_on_the_second_numa_node(cold: Node) -> None:
    device = cold.out("readlink -f /sys/class/nvme/nvme0/device")
    assert cold.read(f"{device}/numa_node") == "1" and cold.read(f"{device}/sriov_totalvfs") == "4"
    cold.out("printf 'block 0' | dd of=/dev/nvme0n1 conv=sync,fsync status=none")
    assert cold.out("head -c 7 /dev/nvme0n1") == "block 0"

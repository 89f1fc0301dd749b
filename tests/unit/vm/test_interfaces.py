"""The queues that root hands over, and which of them a guest uses."""

import errno
import os
from dataclasses import replace

import pytest

from pcocc_runtime.documents.queues import Queue, parse_interfaces
from pcocc_runtime.networks.acts import render_devices
from pcocc_runtime.site.site import Site
from pcocc_runtime.vm import launcher
from pcocc_runtime.vm.interfaces import UsedQueues, plan_queues
from pcocc_runtime.vm.plan import Task
from tests.fake_node import make_facts

TWO = ((Queue(5, 15), Queue(6, 16)), (Queue(7, 17), Queue(8, 18)))


def test_what_the_plugin_writes_is_read() -> None:
    assert parse_interfaces("5/15:6/16,7/17:8/18") == TWO
    assert parse_interfaces("") == () and parse_interfaces("5,6") == ((Queue(5),), (Queue(6),))
    assert parse_interfaces("5/-13") == ((Queue(5, -errno.EACCES),),)
    for text in ("x", "5/", "-5", "5//6", "5:"):
        with pytest.raises(ValueError, match="is no queue of a tap"):
            parse_interfaces(text)


@pytest.mark.parametrize(
    ("vcpus", "model", "accel", "used"),
    [
        (2, "virtio-net-pci", "kvm", UsedQueues(TWO, ())),
        (1, "virtio-net-pci", "kvm", UsedQueues(((Queue(5, 15),), (Queue(7, 17),)), (6, 16, 8, 18))),
        (9, "virtio-net-pci", "tcg", UsedQueues(((Queue(5), Queue(6)), (Queue(7), Queue(8))), (15, 16, 17, 18))),
        (2, "e1000", "kvm", UsedQueues(((Queue(5),), (Queue(7),)), (15, 6, 16, 17, 8, 18))),
    ],
)  # fmt: skip
def test_a_guest_uses_a_queue_for_each_vcpu(vcpus: int, model: str, accel: str, used: UsedQueues) -> None:
    assert plan_queues(TWO, vcpus, model, accel) == used


def test_a_closed_device_is_told_and_one_that_is_not_there_is_not() -> None:
    """And none of the interfaces has it then: its other descriptors are left."""
    one = ((Queue(5, 15),), (Queue(7, -errno.EACCES),))
    plain = ((Queue(5),), (Queue(7),))
    assert plan_queues(one, 1, "virtio-net-pci", "kvm") == UsedQueues(plain, (15,), errno.EACCES)
    assert plan_queues(one, 1, "virtio-net-pci", "tcg") == UsedQueues(plain, (15,))
    for number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        assert plan_queues(((Queue(5, -number),),), 1, "virtio-net-pci", "kvm") == UsedQueues(plain[:1], ())


def test_the_user_reads_a_line_and_what_is_left_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    task = Task(12, 0, 2, 1000, ((Queue(reading, -errno.EACCES), Queue(writing, -errno.EACCES)),), None, None)
    node = replace(make_facts({"default": ()}, {"default": 1}), accel="kvm")
    assert launcher.take_queues(task, node, "virtio-net-pci", 1).interfaces == ((Queue(reading),),)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)
    os.close(reading)
    assert capsys.readouterr().out == (
        f"pcocc: vm0 on {node.name}: /dev/vhost-net cannot be opened (Permission denied): QEMU passes the packets itself, "
        "which is slower\n"
    )


@pytest.mark.parametrize(
    ("accel", "site", "told"),
    [
        ("kvm", Site(), "queues 8\nkvm /dev/kvm\nvhost /dev/vhost-net\n"), ("tcg", Site(), "queues 8\n"),
        ("kvm", Site(vhost_net=False, network_queues=1), "kvm /dev/kvm\n"),
    ],
)  # fmt: skip
def test_the_plugin_is_told_how_many_queues_and_which_devices(accel: str, site: Site, told: str) -> None:
    assert render_devices(accel, site.network_queues, site.vhost_net) == told

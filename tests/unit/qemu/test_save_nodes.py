"""The block nodes of a save: where a guest's writes may go, and what a crash may leave."""

import json

import pytest

from pcocc_runtime.qemu.save_nodes import QemuDisk, parse_disk, plan_aside, plan_filter, plan_overlay


@pytest.mark.parametrize("cache", [{"direct": True, "no-flush": False}, {"direct": False, "no-flush": True}])
def test_the_second_layer_is_treated_as_the_first(cache: dict[str, bool]) -> None:
    medium = {"node-name": "n", "image": {"virtual-size": 7}, "cache": {**cache, "writeback": True}}
    answer = [{"device": "cd"}, {"device": "disk0"}, {"device": "disk0", "qdev": "/machine/x", "inserted": medium}]
    found = parse_disk(answer, "disk0")
    assert found == QemuDisk("/machine/x", "n", 7, *cache.values()) and parse_disk(answer, "disk1") is None
    node = plan_overlay("/s/vm0.qcow2.save", found)
    assert node["cache"] == node["file"]["cache"] == cache and node["discard"] == node["file"]["discard"] == "unmap"
    assert node["file"]["filename"] == "/s/vm0.qcow2.save" and node["backing"] is None


def test_the_copy_never_makes_a_write_of_the_guests_fail() -> None:
    assert plan_filter("drive-node")["on-cbw-error"] == "break-snapshot" and plan_filter("drive-node")["file"] == "drive-node"
    assert plan_aside("/s/vm0.old")["cache"]["no-flush"]  # old blocks are worth nothing once QEMU has ended
    assert plan_filter("n")["target"] == plan_aside("/s/vm0.old")["node-name"]
    json.dumps([plan_filter("n"), plan_aside("/s/vm0.old")])

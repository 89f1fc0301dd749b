"""What running VMs are given, in QEMU's words: drives that are typed, their places, and what QEMU closes afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pcocc_runtime.documents.cluster import Drive
from pcocc_runtime.errors import RequestError
from pcocc_runtime.qemu.arguments import Export, plan_qemu_argv
from pcocc_runtime.qemu.hot_drives import (
    Attached,
    find_attached,
    next_name,
    parse_drive,
    plan_device,
    plan_node,
    plan_set,
    render_drive,
)
from pcocc_runtime.qemu.hot_names import is_drive, plan_release
from pcocc_runtime.qemu.plugs import find_plug
from tests.unit.qemu.plans import PLAN


@pytest.mark.parametrize(
    ("text", "drive"),
    [
        ("/a", Drive("/a")), ("/a,b", Drive("/a,b")), ("/a,format=qcow2", Drive("/a", format="qcow2")),
        ("/a,format=raw,mmp=no,cache=none", Drive("/a", cache="none", mmp="no")), ("/a,other=x", Drive("/a,other=x")),
        ("/a\n,mmp=cluster", Drive("/a\n", mmp="cluster")),
    ],
)  # fmt: skip
def test_a_drive_is_a_path_with_options_behind_it(text: str, drive: Drive) -> None:
    assert parse_drive(text) == drive == parse_drive(render_drive(drive))


@pytest.mark.parametrize("text", ["", ",format=raw", "/a,format=vmdk", "/a,mmp=", "/a,mmp=no,mmp=yes", "/a,cache=x"])
def test_what_is_no_drive_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_drive(text)
    assert caught.value.hint


def test_a_drive_is_as_one_of_the_boot() -> None:
    node = plan_node("disk2", Drive("/a", cache="none", mmp="no", format="qcow2"))
    assert node["driver"] == "qcow2" and node["file"]["locking"] == "off" and node["cache"] == {"direct": True, "no-flush": False}
    assert node["file"]["filename"] == f"/dev/fdset/{plan_set('disk2', '/a')['fdset-id']}"
    assert "locking" not in plan_node("disk2", Drive("/a"))["file"]
    device = plan_device("disk2", Drive("/a"), "plug0")
    assert device["driver"] == "virtio-blk-pci" and device["werror"] == device["rerror"] == "stop" and "share-rw" not in device
    shared = plan_device("disk2", Drive("/a", cache="directsync", mmp="cluster"), "scsi.0")
    assert shared["driver"] == "scsi-hd" and shared["share-rw"] and shared["write-cache"] == "off"


def test_what_was_attached_is_read_from_qemu() -> None:
    sets = [{"fdset-id": 1, "fds": [{"fd": 3}]}, *(
        {"fdset-id": plan_set(name, path)["fdset-id"], "fds": [{"fd": 4, "opaque": plan_set(name, path)["opaque"]}]}
        for name, path in (("disk10", "/b c"), ("disk2", "/a"))
    )]  # fmt: skip
    blocks = [{"device": "disk0"}, {"device": "", "qdev": "/machine/peripheral/disk10/virtio-backend"}]
    found = find_attached(sets, blocks)
    assert found == (Attached("disk2", "/a", False), Attached("disk10", "/b c", True))
    assert next_name(2, found) == "disk3" and next_name(1, found) == "disk1" and next_name(0, ()) == "disk0"


def test_qemu_closes_what_is_ours_and_nothing_else() -> None:
    assert [command for command, _arguments in plan_release("disk2")] == ["blockdev-del", "remove-fd"]
    assert plan_release("disk2")[1][1] == {"fdset-id": plan_set("disk2", "/a")["fdset-id"]}
    assert not any(map(plan_release, ("", "disk", "diskette", "disk2/virtio-backend", "plug0", "disk99999", "net0")))
    assert is_drive("disk0") and not is_drive("/disk0")


def ports(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("pcie-root-port,id=plug")]


def test_q35_has_ports_where_it_has_room() -> None:
    assert len(ports(plan_qemu_argv(PLAN))) == 4 and not ports(plan_qemu_argv(replace(PLAN, machine="pc")))
    assert len(ports(plan_qemu_argv(replace(PLAN, machine="pc-q35-7.2,hmat=off")))) == 4
    assert not ports(plan_qemu_argv(replace(PLAN, custom_args=("-device", "rtl8139,addr=1e"))))
    exports = tuple(Export(f"t{number}", "/d", False) for number in range(18))
    own = ("-device", "e1000e") * 6
    assert ports(plan_qemu_argv(replace(PLAN, exports=exports))) and ports(plan_qemu_argv(replace(PLAN, custom_args=own)))
    assert not ports(plan_qemu_argv(replace(PLAN, exports=exports, custom_args=own))), "they may need the last slot"


def test_a_device_goes_to_a_port_that_has_none() -> None:
    assert find_plug({"plug1", "plug0", "disk1", "plugs"}, {"plug0"}, "pc-q35-7.2-machine") == "plug1"
    assert find_plug({"plug0", "plugs"}, {"plug0"}, "pc-q35-7.2-machine") is None
    assert find_plug((), (), "pc-i440fx-7.2-machine") == "pci.0" and find_plug((), (), "microvm-machine") is None

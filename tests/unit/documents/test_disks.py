"""What the launcher writes about a VM's disks, and a save reads."""

import json

import pytest

from pcocc_runtime.documents.cluster import Drive, Group
from pcocc_runtime.documents.disks import DiskFact, DiskFacts, decode_disks, encode_disks
from pcocc_runtime.errors import NodeError
from pcocc_runtime.qemu.disks import Disk


@pytest.mark.parametrize("image", ["/r/data/ab/abc", None])
def test_what_the_launcher_writes_is_read(image: str | None) -> None:
    group = Group("t", 1, image=image, origin=image and "user:a@1", persistent=(Drive("/d", mmp="cluster"),))
    own = [DiskFact("/s/vm0.qcow2")] if image else []
    data = encode_disks(group, [Disk(one.path) for one in [*own, DiskFact("/d")]], "/s")
    facts = decode_disks(data, "vm0")
    assert facts == DiskFacts((*own, DiskFact("/d", "cluster")), group.image, group.origin, "/s")


@pytest.mark.parametrize("tree", [None, [], {}, {"disks": [1]}, {"disks": ["x"], "image": None, "origin": None, "scratch": "/"},
     {"disks": [], "image": 1, "origin": None, "scratch": "/"}, {"disks": [], "image": None, "origin": None}])
def test_what_somebody_else_wrote_is_refused(tree: object) -> None:
    with pytest.raises(NodeError, match="the disks of vm0 are not known"):
        decode_disks(json.dumps(tree).encode(), "vm0")

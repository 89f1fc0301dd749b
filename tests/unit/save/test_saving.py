"""What a save says, reads and writes before anything runs."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.cli import main as cli
from pcocc_runtime.documents.cluster import Drive, Group
from pcocc_runtime.documents.disks import DiskFact, DiskFacts, parse_facts, render_facts
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.images import qcow2
from pcocc_runtime.qemu.disks import Disk
from pcocc_runtime.slurm.steps import operation_argv

FORMAT = struct.pack(">II8s", 0xE2792ACA, 5, b"qcow2") + bytes(8)


def header(name: bytes, version: int = 3, extensions: bytes = FORMAT, size: int = 1 << 16) -> bytes:
    """Return the first cluster of a qcow2 image with a backing file."""
    begin = 104 if version == 3 else 72
    at = begin + len(extensions)
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, at, len(name), 16, 1 << 30, 0, 1, 0x30000, 0x10000, 1, 0, 0)
    head += struct.pack(">QQQII", 0, 0, 0, 4, 104) if version == 3 else b""
    return (head + extensions + name).ljust(size, b"\0")


@given(st.sampled_from([2, 3]), st.text("abc/.", min_size=1, max_size=1000), st.text("xyz/.", min_size=1, max_size=1000))
def test_a_backing_file_gets_another_name_and_nothing_else_changes(version: int, old: str, new: str) -> None:
    before = header(old.encode(), version)
    after = qcow2.name_backing(before, new, "i")
    assert qcow2.parse_header(after, "i") == qcow2.Header(version, 1 << 30, new)
    assert after == header(new.encode(), version) and len(after) == len(before)


@pytest.mark.parametrize(
    "head",
    [header(b"old", size=150), header(b"old", extensions=struct.pack(">II", 7, 1 << 31)), header(b"")[:8] + bytes(8) + header(b"")[16:]],
    ids=["no room", "an extension too long", "no backing file"],
)  # fmt: skip
def test_a_header_without_room_is_refused(head: bytes) -> None:
    with pytest.raises(RequestError, match="no room for the name"):
        qcow2.name_backing(head, "../../data/00/" + "0" * 64, "i")


@pytest.mark.parametrize("image", ["/r/data/ab/abc", None])
def test_what_the_launcher_writes_is_read(image: str | None) -> None:
    group = Group("t", 1, image=image, origin=image and "user:a@1", persistent=(Drive("/d", mmp="cluster"),))
    own = [DiskFact("/s/vm0.qcow2")] if image else []
    data = render_facts(group, [Disk(one.path) for one in [*own, DiskFact("/d")]], "/s")
    facts = parse_facts(json.loads(data), "vm0")
    assert facts == DiskFacts((*own, DiskFact("/d", "cluster")), group.image, group.origin, "/s")


@pytest.mark.parametrize("tree", [None, [], {}, {"disks": [1]}, {"disks": ["x"], "image": None, "origin": None, "scratch": "/"},
     {"disks": [], "image": 1, "origin": None, "scratch": "/"}, {"disks": [], "image": None, "origin": None}])
def test_what_somebody_else_wrote_is_refused(tree: object) -> None:
    with pytest.raises(NodeError, match="what disks vm0 has is not known"):
        parse_facts(tree, "vm0")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["vm0"], 1, "which job? give -j JOB"),
        (["vm0", "-j", "x"], 1, "'x' is not the number of a job"),
        (["0", "-j", "7"], 1, "'0' is no set of VMs"),
        (["vm[0-", "-j", "7"], 1, "'vm[0-' is no set of VMs"),
        (["vm[0-3]", "-j", "7", "-d", "n"], 1, "several VMs cannot be saved as one image 'n'"),
        (["vm0", "--drive=-1"], 2, "'-1' is not the number of a drive"),
        ([], 2, "the following arguments are required: VMS"),
    ],
)
def test_a_line_that_makes_no_sense(
    words: list[str], status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    try:
        assert cli.main(["save", *words]) == status
    except SystemExit as end:
        assert end.code == status
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[0] and lines[0].startswith("pcocc: error: ") and len(lines) <= 2


def test_an_operation_is_a_step_on_the_vms_node() -> None:
    argv = operation_argv(7, "vm3", ["@save", "--full"])
    assert argv[:3] == ["srun", "--jobid=7", "--overlap"] and argv[-3:] == ["--pcocc-vm=vm3", "@save", "--full"]
    assert {"--nodelist=n2", "--nodes=1", "--ntasks=1"} <= set(operation_argv(7, "vm3", ["@save"], "n2"))

"""What a QEMU says that it can do, and what of its arguments that decides."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents.abilities import (
    PLAIN,
    Abilities,
    decode_abilities,
    encode_abilities,
)
from pcocc_runtime.documents.hardware import GuestNode, Shape, Topology
from pcocc_runtime.errors import RequestError
from pcocc_runtime.node import planning
from pcocc_runtime.qemu.arguments import SharedFs, plan_qemu_argv
from pcocc_runtime.qemu.asking import parse_answers, plan_asking_argv, render_questions
from pcocc_runtime.qemu.cpu import ensure_model
from pcocc_runtime.qemu.memory import Backing
from pcocc_runtime.vm import abilities as own
from tests.fake_node import make_facts
from tests.unit.qemu.plans import PLAN

SHAPE = Shape(8, 2, 2, 1, 1, 2)
NUMA = Topology(
    SHAPE,
    tuple(range(8)),
    nodes=(GuestNode(0, (0, 1, 2, 3), 100), GuestNode(3, (4, 5, 6, 7), 200)),
    distances=((10, 21), (22, 10)),
)
NODE = make_facts({"default": ()}, {"default": 1}, job=7)
BINDS = Abilities((9, 2), frozenset({"host-nodes", "prealloc-threads"}))


def answers(version: tuple[int, int], **extra: Any) -> list[bytes]:
    """Return what a QEMU says, in which the answers to some questions are changed."""
    said: dict[str, Any] = {
        "models": [
            {"name": "host", "unavailable-features": ["kvm"]},
            {"name": "qemu64", "unavailable-features": []},
            {"name": "Icelake-Server", "unavailable-features": ["avx512f", "type", "pku", "CPUID.07H"]},
        ],
        "-smp-opts": [{"option": "smp-opts", "parameters": [{"name": "dies"}]}],
        "-machine": [{"option": "machine", "parameters": [{"name": "smp"}]}],
        "end": {"qemu": {}},
    }
    lines: list[Any] = [
        {"QMP": {"version": {"qemu": {"major": version[0], "minor": version[1], "micro": 0}}}},
        {"return": {}},
    ]
    lines += [{"return": value, "id": name} for name, value in (said | extra).items()]
    return [json.dumps(line).encode() for line in lines] + [
        b"noise",
        b'{"error": {"class": "DeviceNotFound", "desc": "?"}, "id": "of x"}',
        b'{"error": {"class": "GenericError", "desc": "Parameter aio does not accept value"}, "id": "by io_uring"}',
    ]


def test_an_old_qemu_has_none_of_what_came_later() -> None:
    assert parse_answers(answers((6, 2))) == Abilities(
        (6, 2), frozenset(), {"host": ("kvm",), "Icelake-Server": ("avx512f", "pku")}
    )


def test_a_new_one_has() -> None:
    found = parse_answers(
        answers(
            (10, 0),
            **{
                "-smp-opts": [{"option": "smp-opts", "parameters": [{"name": "modules"}]}],
                "-machine": [{"option": "machine", "parameters": [{"name": "smp"}, {"name": "smp-cache"}]}],
                "by native": {},
                "by io_uring": {},
                "of virtio-blk-pci": [{"name": "iothread-vq-mapping"}],
                "of monitor-qmp": [{"name": "chardev"}],
                "of memory-backend-ram": [{"name": "host-nodes"}, {"name": "prealloc-threads"}],
            },
        )
    )
    assert found is not None and found.version == (10, 0)
    assert found.has == {"modules", "io_uring", "native", "vq-mapping", "smp-cache", "host-nodes", "prealloc-threads",
                         "monitor-object"}


@pytest.mark.parametrize("lines", [[], [b"not QEMU"], answers((9, 0))[:3]])
def test_what_does_not_answer_to_the_end_is_none(lines: list[bytes]) -> None:
    assert parse_answers(lines) is None


def test_kept_answers_are_those_of_their_qemu_alone() -> None:
    found = Abilities((9, 2), frozenset({"modules"}), {"host": ("kvm",)})
    data = encode_abilities(found, ["/q", 1, 2, True, "kvm"])
    assert decode_abilities(data, ["/q", 1, 2, True, "kvm"]) == found
    assert decode_abilities(data, ["/q", 1, 3, True, "kvm"]) is None
    for broken in (None, b"", b"[]", b"{}", data[:-9], data.replace(b'"has"', b'"had"')):
        assert decode_abilities(broken, ["/q", 1, 2, True, "kvm"]) is None


def test_this_machines_qemu_is_asked_once_for_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text(f'#!/bin/sh\necho >>{tmp_path}/asked\nexec /usr/bin/qemu-system-x86_64 "$@"\n')
    qemu.chmod(0o755)
    monkeypatch.setattr(naming, "RUN_DIR", tmp_path)
    (tmp_path / "7").mkdir()
    found = own.find_abilities(NODE, str(qemu), None)
    assert found.version >= (6, 2) and {"host-nodes", "native"} <= found.has
    assert own.find_abilities(NODE, str(qemu), None) == found and (tmp_path / "asked").read_text() == "\n"
    qemu.touch()
    assert own.find_abilities(NODE, str(qemu), None) == found and (tmp_path / "asked").read_text() == "\n\n"


def test_a_program_that_is_no_qemu_can_do_nothing_special(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "RUN_DIR", tmp_path)
    (tmp_path / "7").mkdir()
    assert own.find_abilities(NODE, "/bin/true", "Haswell") == PLAIN
    assert own.find_abilities(NODE, str(tmp_path / "gone"), None) == PLAIN


def test_what_the_node_tells_of_its_qemu_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not what a CPU model lacks: the user nobody, as whom the node is asked, may not open /dev/kvm."""
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(own, "ask_qemu", lambda *words: asked.append(words))
    monkeypatch.setattr(naming, "RUN_DIR", tmp_path)
    (tmp_path / "7").mkdir()
    told = replace(NODE, accel="kvm", has=("io_uring", "native"))
    assert own.find_abilities(told, told.qemu, None, 9).has == {"io_uring", "native"} and asked == []
    own.find_abilities(told, told.qemu, "Haswell", 9)
    own.find_abilities(replace(told, accel="tcg"), told.qemu, "Haswell")
    own.find_abilities(told, "/bin/true", None)
    assert asked == [(told.qemu, "kvm", 9), ("/bin/true", "tcg", None)]


def test_a_nodes_qemu_is_asked_once_and_root_keeps_what_it_says(tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text(f'#!/bin/sh\necho >>{tmp_path}/asked\nexec /usr/bin/qemu-system-x86_64 "$@"\n')
    qemu.chmod(0o755)
    has, (kept,) = planning.ask_own(str(qemu), "damaged")
    assert has is not None and "host-nodes" in has and (kept.kind, kept.inside) == ("keep", False)
    assert planning.ask_own(str(qemu), kept.text) == (has, ())
    assert (tmp_path / "asked").read_text() == "\n"
    qemu.touch()
    assert planning.ask_own(str(qemu), kept.text)[0] == has and (tmp_path / "asked").read_text() == "\n\n"
    assert planning.ask_own("/bin/true", kept.text) == planning.ask_own(str(tmp_path / "no"), "") == (None, ())


def test_questions_end_with_quit_and_need_no_machine() -> None:
    assert json.loads(render_questions("/q").splitlines()[-1]) == {"execute": "quit"}
    assert plan_asking_argv("/q", "kvm", 9)[1:7] == [
        "-add-fd", "fd=9,set=1", "-machine", "none", "-accel", "kvm,device=/dev/fdset/1",
    ]  # fmt: skip
    assert plan_asking_argv("/q", "kvm")[:3] == ["/q", "-machine", "none,accel=kvm:tcg"]


def options(name: str, **changes: object) -> list[str]:
    """Return what follows each word of a name in a plan's argument list."""
    argv = plan_qemu_argv(replace(PLAN, **changes))  # type: ignore[arg-type]
    return [after for word, after in itertools.pairwise(argv) if word == name]


def test_numa_nodes_have_their_cpus_memory_and_distances() -> None:
    changes: dict[str, Any] = {"topology": NUMA, "memory": 300, "abilities": BINDS}
    assert options("-smp", **changes) == ["cpus=8,sockets=2,dies=2,cores=1,threads=2,maxcpus=8"]
    assert options("-object", **changes)[:2] == [
        "memory-backend-ram,id=ram0,size=100M,host-nodes=0,policy=bind",
        "memory-backend-ram,id=ram1,size=200M,host-nodes=3,policy=bind",
    ]
    assert options("-numa", **changes) == [
        "node,nodeid=0,memdev=ram0,cpus=0-3",
        "node,nodeid=1,memdev=ram1,cpus=4-7",
        "dist,src=0,dst=1,val=21",
        "dist,src=1,dst=0,val=22",
    ]
    assert options("-machine", **changes) == ["q35,vmport=off,dump-guest-core=off"] and options("-m", **changes) == [
        "size=300M"
    ]


def test_cpus_that_are_not_plugged_in_are_the_last_nodes() -> None:
    found = replace(
        NUMA, shape=SHAPE._replace(cpus=7), nodes=(GuestNode(0, (0, 2), 100), GuestNode(1, (1, 3, 4, 5, 6), 0)), distances=()
    )
    assert options("-numa", topology=found, memory=100) == [
        "node,nodeid=0,memdev=ram0,cpus=0,cpus=2",
        "node,nodeid=1,cpus=1,cpus=3-7",
    ]
    assert options("-smp", topology=found) == ["cpus=7,sockets=2,dies=2,cores=1,threads=2,maxcpus=8"]


@pytest.mark.parametrize(
    ("backing", "shared", "has", "words"),
    [
        (Backing(), True, BINDS.has, "memory-backend-memfd,id=ram,size=300M,share=on,host-nodes=3,policy=bind"),
        (
            Backing(2048),
            False,
            BINDS.has,
            "memory-backend-memfd,id=ram,size=300M,share=on,hugetlb=on,hugetlbsize=2048K,host-nodes=3,policy=bind,"
            "prealloc=on,prealloc-threads=2",
        ),
        (
            Backing(prealloc=True),
            False,
            BINDS.has,
            "memory-backend-ram,id=ram,size=300M,host-nodes=3,policy=bind,prealloc=on,prealloc-threads=2",
        ),
        (Backing(prealloc=True), False, frozenset(), "memory-backend-ram,id=ram,size=300M,prealloc=on"),
    ],
)
def test_memory_of_one_node(backing: Backing, shared: bool, has: frozenset[str], words: str) -> None:
    topology = Topology(Shape(2, cores=2), (4, 5), nodes=(GuestNode(3, (0, 1), 300),))
    filesystems = (SharedFs("t", 9),) if shared else ()
    changes: dict[str, Any] = {
        "topology": topology,
        "backing": backing,
        "filesystems": filesystems,
        "abilities": Abilities(has=has),
    }
    assert options("-object", **changes)[0] == words
    assert options("-machine", **changes) == ["q35,vmport=off,dump-guest-core=off,memory-backend=ram"]


def test_memory_can_be_kept_from_swap() -> None:
    assert options("-overcommit", backing=Backing(lock=True)) == ["mem-lock=on"]
    assert options("-object", backing=Backing(lock=True)) == options("-object")


@pytest.mark.parametrize(
    ("changes", "cpu"),
    [
        ({}, "max"),
        ({"topology": NUMA}, "max,vendor=GenuineIntel"),
        ({"topology": replace(NUMA, l3=False)}, "max,vendor=GenuineIntel,l3-cache=off"),
        ({"accel": "kvm"}, "host"),
        ({"accel": "kvm", "topology": NUMA, "topoext": False}, "host,migratable=off,kvm-hint-dedicated=on"),
        (
            {"accel": "kvm", "topology": replace(NUMA, whole_l3=True), "topoext": True},
            "host,migratable=off,kvm-hint-dedicated=on,host-cache-info=on,topoext=on",
        ),
        ({"accel": "kvm", "topology": NUMA, "cpu_model": "Haswell,-tsx"}, "Haswell,-tsx"),
    ],
)
def test_cpus(changes: dict[str, Any], cpu: str) -> None:
    assert options("-cpu", **changes) == [cpu]


def test_clusters_share_an_l2_where_qemu_can_say_so() -> None:
    found = Topology(Shape(8, 1, 1, 2, 4, 1), tuple(range(8)), l2=True)
    assert options("-smp", topology=found) == ["cpus=8,sockets=1,modules=2,cores=4,threads=1,maxcpus=8"]
    assert options("-machine", topology=found) == ["q35,vmport=off,dump-guest-core=off"]
    assert options("-machine", topology=found, abilities=Abilities(has=frozenset({"smp-cache"}))) == [
        "q35,vmport=off,dump-guest-core=off,smp-cache.0.cache=l2,smp-cache.0.topology=module"
    ]


def test_a_model_that_the_host_lacks_is_refused_with_its_flags() -> None:
    lacks = {"Icelake-Server": ("avx512f", "pku")}
    with pytest.raises(
        RequestError, match="this node's CPU is not Icelake-Server, which template 't' asks for: it lacks avx512f, pku"
    ) as caught:
        ensure_model("Icelake-Server,-tsx", "kvm", lacks, "t")
    assert "Icelake-Server,-tsx,-avx512f,-pku" in (caught.value.hint or "")
    for model, accel in (
        ("Icelake-Server", "tcg"),
        ("Haswell", "kvm"),
        (None, "kvm"),
        ("Icelake-Server,-avx512f,pku=off", "kvm"),
    ):
        ensure_model(model, accel, lacks, "t")

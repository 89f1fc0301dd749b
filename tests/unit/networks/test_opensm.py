"""What a subnet manager is told, and how a fault in its file is found; tests/netns/test_partitions.py asks a real opensm."""

import json

import pytest

from pcocc_runtime.networks.kinds import InfinibandNetwork
from pcocc_runtime.networks.opensm import find_faults, render_opensm, render_ufm

IB = InfinibandNetwork("ib", "mlx5_0", 0x2000, 0x2001, max_vms=102)
FEW = InfinibandNetwork("few", "mlx5_1", 1, 1, "k", 0xFEFE, 2)
NETWORKS = (IB, FEW)
SITE = [
    "# the site's own",
    "Default=0x7fff, ipoib :",
    "  ALL=limited, SELF=full;",
    "storage=0x1000,mtu=5,rate=12 : 0x1=full, 0x2 ;",
]
OURS = [*render_opensm(NETWORKS)]


def faults(lines: list[str]) -> list[str]:
    return [str(one) for one in find_faults((f"{line}\n" for line in lines), NETWORKS, "f")]


def test_the_lines_for_opensm() -> None:
    assert [line.split(":")[0] for line in OURS] == [
        "# pcocc's partitions begin",
        "# network ib",
        *["pcocc_2000=0x2000, ipoib, indx0, defmember=full "] * 2,
        *["pcocc_2001=0x2001, ipoib, indx0, defmember=full "] * 2,
        "# network few",
        "pcocc_0001=0x0001, ipoib, indx0, defmember=full ",
        *["Default=0x7fff, defmember=limited "] * 5,
        "# pcocc's partitions end",
    ]
    assert max(map(len, OURS)) < 4095
    members = [line for line in OURS if line.startswith("pcocc_2000")]
    assert [line.count("0xc2cc2000") for line in members] == [100, 2] and members[1].endswith(
        ": 0xc2cc200000006401, 0xc2cc200000006501 ;"
    )
    limited = [
        guid
        for line in OURS
        if line.startswith("Default")
        for guid in line.partition(": ")[2].rstrip(" ;").split(", ")
    ]
    full = [
        guid
        for line in OURS
        if line.startswith("pcocc")
        for guid in line.partition(": ")[2].rstrip(" ;").split(", ")
    ]
    assert limited == full and len({*full}) == 2 * 102 + 2


def test_the_requests_to_ufm() -> None:
    bodies = [json.loads(line) for line in render_ufm(NETWORKS)]
    assert bodies[-2:] == [
        {
            "pkey": key,
            "guids": ["fefe000100000001", "fefe000100000101"],
            "membership": member,
            "index0": first,
            "ip_over_ib": True,
        }
        for key, member, first in (("0x0001", "full", True), ("0x7fff", "limited", False))
    ]
    assert [one["pkey"] for one in bodies] == ["0x2000", "0x7fff", "0x2001", "0x7fff", "0x0001", "0x7fff"]


def test_a_right_file_has_no_fault() -> None:
    assert faults([*SITE, *OURS, "more=0x3000:ALL ;", ""]) == []


@pytest.mark.parametrize("number", range(len(OURS)))
def test_a_fault_in_any_line_is_found(number: int) -> None:
    line = OURS[number]
    others = {
        line[:-1],
        line.replace("0x", "0xz"),
        line.replace(",", "", 1),
        f"{line} x",
        line.replace("limited", "full"),
        "",
    } - {line}
    for other in others:
        assert faults([*SITE, *OURS[:number], other, *OURS[number + 1 :]])
    assert faults([*SITE, *OURS[:number], *OURS[number + 1 :]]) and faults([*SITE, *OURS[:number]])
    if number + 1 < len(OURS):  # the last is a comment, which may stand there twice
        assert faults([*SITE, *OURS[:number], line, line, *OURS[number + 1 :]])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (["a=0x1000 : 0xzz ;"], [], "f:1: 'a=0x1000 : 0xzz' is not a partition as opensm reads it"),
        (["a=0x1000 ALL ;"], [], "f:1: 'a=0x1000 ALL' is not a partition as opensm reads it"),
        (["a=0x1000 : ALL"], [], "f:1: 'a=0x1000 : ALL' has no ';' at its end"),
        (["# x", "", "a=0x1000 : ALL ; b=0x2 : 0x1,"], [], "f:3: 'b=0x2 : 0x1,' has no ';' at its end"),
        (["a : ALL ;"], [], "f:1: 'a : ALL' has no key, and opensm might choose one of pcocc's"),
        (["a=0x2001 : ALL ;"], [], "f:1: the key 0x2001 belongs to the pool of network 'ib'"),
        (["a=0xa001 : ALL ;"], [], "f:1: the key 0x2001 belongs to the pool of network 'ib'"),
        ([], ["a=0x8001 : ALL ;"], f"f:{len(OURS) + 1}: the key 0x0001 belongs to the pool of network 'few'"),
        (
            [],
            ["Default=0xffff : ALL=full ;"],
            f"f:{len(OURS) + 1}: 'Default=0xffff : ALL=full' comes after pcocc's lines",
        ),
        (
            [],
            ["Default : ALL=full ;"],
            f"f:{len(OURS) + 1}: 'Default : ALL=full' comes after pcocc's lines",
        ),
        ([], ["a=0x1000"], f"f:{len(OURS) + 1}: 'a=0x1000' has no ';' at its end"),
    ],
)
def test_a_fault_of_the_sites_own_is_found(before: list[str], after: list[str], said: str) -> None:
    assert faults([*before, *OURS, *after]) == [said]


def test_lines_that_are_missing_are_told() -> None:
    assert faults([]) == ["f:1: pcocc's partitions are missing"]
    assert faults(OURS[:-1]) == [f"f:{len(OURS)}: pcocc's partitions end too early"]
    assert faults([*OURS, *OURS]) == [f"f:{len(OURS) + 1}: pcocc's partitions begin a second time"]

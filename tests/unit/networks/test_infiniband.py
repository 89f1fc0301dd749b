"""Partition keys, their licences and GUIDs."""

import pytest

from pcocc_runtime.addressing import partition_guid
from pcocc_runtime.naming import MAX_RANK
from pcocc_runtime.networks.infiniband import licence_of, parse_keys
from pcocc_runtime.networks.kinds import InfinibandNetwork

IB = InfinibandNetwork("ib", "mlx5_0", 0x20, 0x2001)


def test_a_guid_is_made_of_prefix_key_and_rank() -> None:
    assert f"{partition_guid(0xC2CC, 0x2001, 5, 1):#x}" == "0xc2cc200100000501"
    assert f"{partition_guid(0xC2CC, 0x2001, MAX_RANK, 0):#x}" == "0xc2cc200103ffff00"


def test_no_two_vms_share_a_guid() -> None:
    found = {partition_guid(prefix, key, rank, port)
             for prefix in (0, 0xC2CC, 0xFEFF) for key in (1, 0x2000, 0x7FFE) for rank in (0, 1, 0x100,
                                                                                           MAX_RANK) for port in (0,
                                                                                                                  1)}  # fmt: skip
    assert len(found) == 3 * 3 * 4 * 2 and max(found) < 1 << 64


def test_a_key_is_a_licence() -> None:
    assert [licence_of(IB, key) for key in (0x20, 0x2001)] == ["pkey0020", "pkey2001"]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("pkey2001", [0x2001]),
        ("pkey2001:1", [0x2001]),
        ("matlab:2,pkey0020:1,x", [0x20]),
        ("pkey0020,pkey2001", [0x20, 0x2001]),
        ("pkey2001@db:1", [0x2001]),
        ("pkey2002,pkey001f", []),
        ("xpkey2001,pkey20011,pkey201,pkey200X,PKEY2001", []),
        ("", []),
    ],
)
def test_keys_are_found_among_licences(text: str, keys: list[int]) -> None:
    assert parse_keys(text, IB) == keys

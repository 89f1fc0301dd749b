"""What root's helper and its planner tell each other."""

import pytest

from pcocc_runtime.documents.work import (
    Act,
    ChargeWanted,
    Held,
    Offer,
    PortWish,
    Work,
    decode_held,
    decode_offer,
    decode_work,
    encode_end,
    encode_line,
)
from pcocc_runtime.errors import ConfigError, NodeError, PcoccError, RequestError

OFFER = Offer("/scratch/pcocc", "auto", "qemu-system-x86_64", True, (PortWish(0, "lan", 3, 22, 60222, 60230),), (60222,))
WORK = Work((Act("nft", True, "add table inet x\n"), Act("dnsmasq", True, "port=53", "0", "0600")), "{}", "tap 0\n")
HELD = Held(None, "kvm", "it works")


def test_what_is_encoded_is_decoded() -> None:
    assert decode_offer(encode_line(OFFER)) == OFFER
    assert decode_work(encode_line(WORK)) == WORK
    assert decode_held(encode_line(HELD)) == HELD


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("must be a number", "/etc/pcocc/pcocc.yaml", 7, "max-vms", "write one"),
        RequestError("you may not use resource set 'big'"),
        NodeError("n2: no space left on device", "ask the admins to look at this node"),
    ],
)
def test_the_error_that_ends_the_planner_is_raised_where_offer_and_work_are_read(error: PcoccError) -> None:
    for decode in (decode_offer, decode_work):
        with pytest.raises(NodeError) as caught:
            decode(encode_end(error))
        assert (caught.value.message, caught.value.hint, caught.value.where) == (error.message, error.hint, error.where)


def test_what_the_job_is_charged_to_is_asked_for() -> None:
    for decode in (decode_offer, decode_work):
        with pytest.raises(ChargeWanted):
            decode(encode_end(ChargeWanted()))


@pytest.mark.parametrize(
    "line",
    [b"", b"7", b"[]", b"{}", b"[[", b"[" * 100_000, b'{"charge": true}', b'["error"]', b'["Work", 1, 2]', encode_line(OFFER)],
    ids=["nothing", "number", "empty", "mapping", "cut", "deep", "old", "bare error", "short", "another"],
)
def test_any_other_line_is_none(line: bytes) -> None:
    with pytest.raises(NodeError, match="ended without a message"):
        decode_work(line)

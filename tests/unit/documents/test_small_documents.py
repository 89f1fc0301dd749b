"""The options as the plugin hands them over, and the files of a VM that other processes read."""

import pytest

from pcocc_runtime.documents.command_line import decode_command_line, encode_command_line
from pcocc_runtime.documents.job_record import JobRecord, ProcessId, decode_record, encode_record
from pcocc_runtime.documents.typed_options import TypedOptions, decode_typed_options, encode_typed_options
from pcocc_runtime.documents.work import Forward, Nat, decode_nat, encode_nat
from pcocc_runtime.errors import NodeError


def test_options_arrive() -> None:
    options = TypedOptions("a:2", ["b=/c"], ["t=/t"], "u", True, None, "vm0")
    assert decode_typed_options(encode_typed_options(options)) == options
    assert decode_typed_options("{}") == TypedOptions()


@pytest.mark.parametrize("text", ["", "[]", '{"template": 7}', '{"images": [7]}', '{"user_data_force": "yes"}'])
def test_what_the_plugin_does_not_write_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        decode_typed_options(text)


def test_a_command_line_arrives() -> None:
    assert decode_command_line(encode_command_line(("qemu", "-m", "1")), "vm0") == ["qemu", "-m", "1"]


@pytest.mark.parametrize("data", [None, b"", b"{}", b'["qemu", 7]', b"[" * 100_000])
def test_a_damaged_command_line_is_told(data: bytes | None) -> None:
    with pytest.raises(NodeError, match=r"QEMU's command line of vm0 is not known: qemu\.json"):
        decode_command_line(data, "vm0")


@pytest.mark.parametrize("nat", [None, Nat(3), Nat(4, (Forward(0, 1, 22, 60222), Forward(0, 2, 22, 60223)))])
def test_a_record_tells_the_next_helper_everything(nat: Nat | None) -> None:
    held = encode_nat(nat) if nat else "null"
    record = JobRecord(7, 1, 1000, ProcessId(12, 345), "/scratch/pcocc", 0, "/slurm/job_7/step_1", held)
    assert decode_record(7, encode_record(record)) == record
    assert decode_nat(decode_record(7, encode_record(record)).nat) == nat


def test_a_record_of_before_is_read() -> None:
    data = (
        b'{"job": 7, "step": 0, "uid": 5, "stepd": {"pid": 1, "start": 2}, "scratch": "/s", "heir": null, "group": null,'
        b' "nat": [3, [[0, 1, 22, 60222]]], "version": 1}'
    )
    record = decode_record(7, data)
    assert record == JobRecord(7, 0, 5, ProcessId(1, 2), "/s", nat=record.nat)
    assert decode_nat(record.nat) == Nat(3, (Forward(0, 1, 22, 60222),))

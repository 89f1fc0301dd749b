"""Root gives devices to users and takes them back; tests/netns/test_functions.py runs the whole helper."""

import os
import resource
from pathlib import Path, PurePath

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents.devices import GivenDevices, encode_devices
from pcocc_runtime.documents.job_record import JobRecord, ProcessId
from pcocc_runtime.errors import NodeError
from pcocc_runtime.node import devices, records
from pcocc_runtime.system import process


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is done to files and told to ip(8), in order; root's directory is a temporary one."""
    found: list[object] = []
    (tmp_path / ".state").mkdir()
    monkeypatch.setattr(naming, "STATE_DIR", PurePath(tmp_path / ".state"))
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: found.append((path, uid, gid)))
    monkeypatch.setattr(process, "run", lambda argv, text: found.append((*argv, text)))
    return found


def wish(tmp_path: Path, uid: int) -> str:
    for name in ("21", "22"):
        (tmp_path / name).touch()
    return encode_devices(GivenDevices(uid, [f"{tmp_path}/21", f"{tmp_path}/22"], "down\n"))


def test_what_is_given_is_taken_back(tmp_path: Path, told: list[object]) -> None:
    text = wish(tmp_path, os.getuid())
    devices.give(12, text)
    assert told == [(f"{tmp_path}/{name}", os.getuid(), -1) for name in ("21", "22")]
    assert (tmp_path / ".state/12.devices").read_text() == text
    told.clear()
    (tmp_path / "21").unlink()  # bound to another driver meanwhile
    devices.take_back(12)
    assert told == [(f"{tmp_path}/22", 0, 0), ("ip", "-force", "-batch", "-", "down\n")]


@pytest.mark.parametrize("gone", [["21"], ["21", "22"]])
def test_a_job_whose_functions_are_gone_is_released(
    tmp_path: Path, told: list[object], monkeypatch: pytest.MonkeyPatch, gone: list[str]
) -> None:
    """Its node's admin has removed them, and ip(8) fails for each of them, today and at each later try."""

    def fail(argv: list[str], text: str) -> None:
        told.append((*argv, text))
        raise NodeError("ip failed: RTNETLINK answers: Invalid argument")

    devices.give(12, wish(tmp_path, os.getuid()))
    monkeypatch.setattr(process, "run", fail)
    with pytest.raises(NodeError, match="Invalid argument"):
        devices.take_back(12)  # as long as all of them are there, somebody else is to blame
    for name in gone:
        (tmp_path / name).unlink()
    told.clear()
    devices.take_back(12)
    assert told[-1] == ("ip", "-force", "-batch", "-", "down\n")


def test_of_devices_that_are_on_no_fabric_ip_is_told_nothing(tmp_path: Path, told: list[object]) -> None:
    (tmp_path / "21").touch()
    devices.give(12, encode_devices(GivenDevices(os.getuid(), [f"{tmp_path}/21"], "")))
    devices.take_back(12)
    assert told == [(f"{tmp_path}/21", os.getuid(), -1), (f"{tmp_path}/21", 0, 0)]


def test_who_has_devices_may_pin_memory(tmp_path: Path, told: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[object, ...]] = []

    def allow(*words: object) -> None:
        found.append(words)
        raise PermissionError  # of root in a container

    monkeypatch.setattr(devices.resource, "prlimit", allow)
    text = wish(tmp_path, os.getuid())
    devices.give(12, text)
    assert found == []
    records.write_record(JobRecord(12, 0, os.getuid(), ProcessId(4242, 1)))
    devices.give(12, text)
    assert found == [(4242, resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))]


def test_of_another_users_nothing_is_touched(tmp_path: Path, told: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    text = wish(tmp_path, 4243)
    real = os.stat_result((0o600, 0, 0, 1, 4242, 0, 0, 0, 0, 0))
    monkeypatch.setattr(devices.os, "stat", lambda path: real)
    with pytest.raises(NodeError, match="21 of this node still belongs to another user"):
        devices.give(12, text)
    monkeypatch.undo()
    assert told == [] and not (tmp_path / ".state/12.devices").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"uid": 1, "devices": [2], "ip": ""}', '{"uid": 1, "ip": ""}', "[" * 100_000])
def test_what_is_none_is_told(told: list[object], text: str) -> None:
    with pytest.raises(NodeError, match="cannot be read"):
        devices.give(12, text)
    assert told == []

"""What QEMU's packages say they install, and which of their firmware a machine gets."""

import json

import pytest

from pcocc_runtime.qemu.descriptors import UefiFirmware, VhostUserProgram, parse_uefi, parse_vhost_user
from pcocc_runtime.qemu.firmware import choose_uefi

TARGETS = [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}]


def descriptor(**changes: object) -> bytes:
    mapping = {"device": "flash", "executable": {"filename": "/code", "format": "raw"},
               "nvram-template": {"filename": "/vars", "format": "raw"}}  # fmt: skip
    tree = {"interface-types": ["uefi"], "mapping": mapping, "targets": TARGETS, "features": [], **changes}
    return json.dumps(tree).encode()


def test_a_descriptor_of_uefi_is_read() -> None:
    arm = {"architecture": "aarch64", "machines": ["virt-*"]}
    found = parse_uefi(descriptor(targets=[arm, *TARGETS]))
    assert found == UefiFirmware("/code", "/vars", ("pc-i440fx-*", "pc-q35-*"))


@pytest.mark.parametrize("text", [
    b"", b"[]", b"5", b"{}", b'{"mapping": 5}', descriptor(features=["requires-smm"]), descriptor(features=["enrolled-keys"]),
    descriptor(**{"interface-types": ["bios"]}), descriptor(mapping={"device": "memory", "filename": "/bios"}),
    descriptor(targets=[{"architecture": "x86_64", "machines": [7]}]), descriptor(targets=[{"architecture": "x86_64"}]),
])  # fmt: skip
def test_firmware_that_does_not_boot_any_guest_is_none(text: bytes) -> None:
    assert parse_uefi(text) is None


def test_the_first_firmware_for_a_machine_is_taken() -> None:
    arm, first, second = (UefiFirmware(name, name, machines) for name, machines in (
        ("arm", ()), ("first", ("pc-i440fx-*", "pc-q35-*")), ("second", ("pc-i440fx-*", "pc-q35-*"))))  # fmt: skip
    for machine in ("q35", "pc-q35-6.2,smm=off", "smm=off,type=pc"):
        assert choose_uefi([arm, first, second], machine) == first
    assert choose_uefi([arm, first, second], "microvm") is None and choose_uefi([arm], "q35") is None


def test_a_vhost_user_program_is_read() -> None:
    assert parse_vhost_user(b'{"type": "fs", "binary": "/usr/libexec/virtiofsd"}') == VhostUserProgram(
        "fs", "/usr/libexec/virtiofsd"
    )
    for text in (b"", b"{}", b"[]", b'{"type": "fs"}', b'{"type": "fs", "binary": 7}'):
        assert parse_vhost_user(text) is None

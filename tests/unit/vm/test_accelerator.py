"""Who may not open /dev/kvm gets it from root where QEMU takes it, and is told of the command that opens it where it does not."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime.documents.node import NodeFacts
from pcocc_runtime.qemu.arguments import plan_qemu_argv
from pcocc_runtime.qemu.version import parse_version
from pcocc_runtime.vm import accelerator
from pcocc_runtime.vm.accelerator import choose_accelerator
from tests.fake_node import make_facts
from tests.unit.qemu.plans import PLAN


@pytest.mark.parametrize(("text", "version"), [
    ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright", (7, 2)),
    ("QEMU emulator version 10.0.13 (Debian)", (10, 0)),
    ("QEMU emulator version 8.2.0", (8, 2)),
    ("qemu-img version 8.2.0", None),
    ("", None),
])  # fmt: skip
def test_versions(text: str, version: tuple[int, int] | None) -> None:
    assert parse_version(text) == version


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> NodeFacts:
    """A node with KVM, whose device this user may not open."""
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accelerator, "KVM_DEVICE", str(tmp_path / "kvm"))
    monkeypatch.setattr(os, "access", lambda path, _mode: str(path) != str(tmp_path / "kvm"))
    return replace(make_facts({"default": ()}, {"default": 1}), accel="kvm")


def qemu_of(tmp_path: Path, version: str) -> str:
    path = tmp_path / "qemu"
    path.write_text(f"#!/bin/sh\necho 'QEMU emulator version {version}'\n")
    path.chmod(0o755)
    return str(path)


def test_root_hands_it_over(node: NodeFacts, tmp_path: Path) -> None:
    assert choose_accelerator(node, qemu_of(tmp_path, "8.2.2"), 7) == (node, 7)


@pytest.mark.parametrize(("version", "handed"), [("7.2.22", 7), ("10.0.2", None)])
def test_where_it_cannot_the_command_that_opens_it_is_named(
    version: str, handed: int | None, node: NodeFacts, tmp_path: Path
) -> None:
    found, fd = choose_accelerator(node, qemu_of(tmp_path, version), handed)
    assert (found.accel, fd) == ("tcg", None)
    assert "usermod -aG root " in found.accel_why and f"chmod 666 {tmp_path}/kvm" in found.accel_why


def test_who_may_open_it_does(node: NodeFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: True)
    assert choose_accelerator(node, "/nonexistent", 7) == (node, None)


def test_qemu_is_told_of_the_descriptor() -> None:
    argv = plan_qemu_argv(replace(PLAN, accel="kvm", kvm_fd=7))
    assert [argv[argv.index(word) + 1] for word in ("-add-fd", "-accel")] == ["fd=7,set=1", "kvm,device=/dev/fdset/1"]
    plain = plan_qemu_argv(replace(PLAN, accel="kvm"))
    assert plain[plain.index("-accel") + 1] == "kvm" and "-add-fd" not in plain

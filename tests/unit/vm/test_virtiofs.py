"""Virtiofsd, found by its descriptor and asked what it can do."""

from pathlib import Path

import pytest

from pcocc_runtime.errors import NodeError
from pcocc_runtime.system import qemu_descriptors
from pcocc_runtime.vm import virtiofs


def test_a_missing_virtiofsd_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        qemu_descriptors, "read_descriptors",
        lambda kind: [b'{"type": "fs", "binary": "/gone"}', b'{"type": "gpu", "binary": "/bin/sh"}', b"{"],
    )
    with pytest.raises(NodeError, match="virtiofsd is not installed"):
        virtiofs.find_program()


def test_a_virtiofsd_says_what_it_can_do(tmp_path: Path) -> None:
    program = tmp_path / "virtiofsd"
    program.write_text('#!/bin/sh\n[ "$*" = --print-capabilities ] && echo said\nexit 1\n')
    program.chmod(0o755)
    assert virtiofs.read_capabilities(str(program)) == "said\n"

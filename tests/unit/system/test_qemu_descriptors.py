"""What QEMU's packages say they installed: read in order, an admin's files before a package's."""

from pathlib import Path

import pytest

from pcocc_runtime.system import qemu_descriptors


def test_descriptors_come_in_order_and_the_admins_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("etc", "usr"):
        (tmp_path / name / "firmware").mkdir(parents=True)
    monkeypatch.setattr(qemu_descriptors, "DIRECTORIES", (str(tmp_path / "etc"), str(tmp_path / "usr")))
    for path, text in (("usr/firmware/30-a.json", '{"a": 1}'), ("usr/firmware/20-b.json", '{"b": 1}'),
                       ("usr/firmware/40-c.json", '{"c": 1}'),
                       ("etc/firmware/20-b.json", '{"b": 2}'), ("etc/firmware/40-c.json", ""),
                       ("usr/firmware/README", "{}")):  # fmt: skip
        (tmp_path / path).write_text(text)
    assert qemu_descriptors.read_descriptors("firmware") == [b'{"b": 2}', b'{"a": 1}']
    assert qemu_descriptors.read_descriptors("nothing") == []

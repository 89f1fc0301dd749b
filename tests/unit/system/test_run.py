"""What is said of a program that cannot be run, fails or does not end: the cure fits what happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcocc_runtime.errors import NodeError
from pcocc_runtime.system import process

LOOK = "ask the admins to look at that node's load and logs"


@pytest.mark.parametrize(("script", "said", "hint"), [
    (None, "the program nft is not installed on", "install the package nftables"),
    ("echo no such table >&2; exit 1", "nft failed on .*: no such table", LOOK),
    ("exec sleep 60", "nft did not end within 0.2 s on", LOOK),
])  # fmt: skip
def test_the_hint_is_for_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str, hint: str
) -> None:
    if script is not None:
        (tmp_path / "nft").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nft").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NodeError, match=said) as caught:
        process.run(["nft", "-f", "-"], text="", timeout=0.2 if script == "exec sleep 60" else 30)
    assert caught.value.hint == hint

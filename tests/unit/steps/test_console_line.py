"""The connection of a console to QEMU's serial line."""

import socket
from pathlib import Path

import pytest

from pcocc_runtime.errors import NodeError
from pcocc_runtime.steps.console import take_line


@pytest.mark.parametrize("left", [False, True], ids=["no socket", "a dead one"])
def test_a_line_whose_qemu_is_gone_is_a_sentence(tmp_path: Path, left: bool) -> None:
    if left:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "console"))
    with pytest.raises(NodeError, match=r"^vm3 has just ended, or has not started yet$"):
        take_line(str(tmp_path), "vm3")

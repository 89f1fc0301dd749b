"""The display of a VM at a socket here: each connection has a step of its own, which ends with it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pcocc_runtime.cli import display
from tests.waiting import limit, wait_for

ROOT = Path(__file__).resolve().parents[3]
ECHO = (sys.executable, "-c", "import os\nwhile data := os.read(0, 100): os.write(1, data.upper())")
RUN = (
    "import socket, sys; sys.path.insert(0, sys.argv[1]); from pcocc_runtime.cli.display import Gate\n"
    "with socket.socket(socket.AF_UNIX) as listener:\n"
    "    listener.bind(sys.argv[2]); listener.listen(8); sys.exit(Gate(listener, sys.argv[3:], None).run())"
)


def test_each_connection_has_its_own_step(tmp_path: Path) -> None:
    path = tmp_path / "screen"
    gate = subprocess.Popen([sys.executable, "-c", RUN, str(ROOT), str(path), *ECHO])
    wait_for(path.exists, "the socket")
    try:
        with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
            for end, text in ((one, b"one"), (other, b"other")):
                end.settimeout(limit(20))
                end.connect(str(path))
                end.sendall(text)
            assert (one.recv(100), other.recv(100)) == (b"ONE", b"OTHER")
    finally:
        gate.send_signal(signal.SIGTERM)
    assert gate.wait(limit(20)) == 0


def test_a_viewer_needs_a_screen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    viewer = tmp_path / display.VIEWER
    viewer.write_text("#!/bin/sh\nexit 0\n")
    viewer.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert display._start_viewer("spice+unix:///x") is None
    monkeypatch.setenv("DISPLAY", ":0")
    started = display._start_viewer("spice+unix:///x")
    assert started is not None and started.wait(limit(20)) == 0

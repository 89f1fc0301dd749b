"""A save's copy is ended at any moment by a signal, or by an error in one of its threads: no thread of it runs on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from pcocc_runtime.save import copy
from pcocc_runtime.save.copy import copy_layer
from tests.images import interrupted_copy
from tests.waiting import limit


def test_a_copy_that_a_signal_ends_leaves_no_thread_and_no_signal_blocked(tmp_path: Path) -> None:
    argv = [sys.executable, "-IS", interrupted_copy.__file__, str(tmp_path), "1000"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=limit(60))
    assert (done.returncode, done.stderr) == (0, "")
    seen = Counter(done.stdout.splitlines())
    assert set(seen) == {"interrupted 0 0", "copied 0 0"} and seen["interrupted 0 0"] > 200


@pytest.mark.parametrize(("name", "error"), [("pread", MemoryError()), ("fdatasync", OSError(5, "Input/output error"))])
def test_what_goes_wrong_in_a_thread_ends_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    (tmp_path / "source").write_bytes(bytes(9000))
    monkeypatch.setattr(copy.os, name, fail)
    with pytest.raises(type(error)):
        copy_layer(tmp_path / "source", tmp_path / "target", bytes, 4096, print, lambda: None, lambda: time.sleep(0.3))
    assert threading.active_count() == 1

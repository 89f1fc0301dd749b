"""A thread that stands in for a program behind a unix socket, for one client."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.waiting import limit


@contextlib.contextmanager
def serving(path: Path, talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Let `talk` have the first connection to a socket until it returns or its client has heard enough; yield the path."""

    def run() -> None:
        with listener.accept()[0] as client, contextlib.suppress(OSError):
            talk(client)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield str(path)
        thread.join(limit(20))
        assert not thread.is_alive()

"""Kills a saver at a chosen step: an operation on its files, a program that it starts, a message to keeper or agent."""

import os
import signal
import sys
from typing import Any

from pcocc_runtime.guest.agent import Agent
from pcocc_runtime.system.saver_connection import SaverConnection

_STEPS = {
    "open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "shutil.rmtree",
    "fcntl.lockf",
}


def die_at(step: int) -> None:
    """Kill this process before its step-th step."""
    left = step

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("subprocess.Popen", "socket.connect") or (
            event in _STEPS and str(arguments[0] if arguments else "").startswith("/run/pcocc/data")
        ):
            count()

    def counted(function: Any) -> Any:
        def run(*arguments: Any) -> Any:
            count()
            result = function(*arguments)
            count()
            return result

        return run

    for one in (SaverConnection, Agent):
        one._send = counted(one._send)  # type: ignore[method-assign]
    sys.addaudithook(look)

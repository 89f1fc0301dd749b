"""Has a process begin on each connection to a socket, which gives the VM a directory of the host (vm/directory.py).

It must be the keeper that starts it: a virtiofsd lives as long as the VM, in the VM's step, and not in that of the task
that asks for it.
"""

from __future__ import annotations

import os
import selectors
import socket

from pcocc_runtime.documents.directory import DIRECTORY_SOCKET
from pcocc_runtime.system.installed import LIBEXEC

SERVER = f"{LIBEXEC}/directory"


class Directories:
    """The socket, driven by the keeper's selector."""

    def __init__(self, directory: str, selector: selectors.BaseSelector) -> None:
        self.selector = selector
        self.listener = socket.socket(socket.AF_UNIX)
        try:
            self.listener.bind(os.path.join(directory, DIRECTORY_SOCKET))
            self.listener.listen(4)
            self.listener.setblocking(False)
            selector.register(self.listener, selectors.EVENT_READ, self._accept)
        except OSError:
            self.listener.close()  # the job's directory is already being released

    def _accept(self) -> None:
        try:
            connection, _address = self.listener.accept()
        except OSError:
            return  # it has gone again
        with connection:
            self._start(connection)

    def _start(self, connection: socket.socket) -> None:
        """Start the process, which has the connection as its input; without one, the task reads its end."""
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        ends = [(os.POSIX_SPAWN_DUP2, connection.fileno(), 0), (os.POSIX_SPAWN_DUP2, null, 1)]
        try:
            pid = os.posix_spawn(SERVER, [SERVER], os.environ, file_actions=ends)
        except OSError:
            return
        finally:
            os.close(null)
        pidfd = os.pidfd_open(pid)

        def ended() -> None:
            self.selector.unregister(pidfd)
            os.close(pidfd)
            os.waitpid(pid, 0)

        self.selector.register(pidfd, selectors.EVENT_READ, ended)

"""Serves one directory of the host to a VM that runs: a short process, which leaves a virtiofsd behind.

The VM's keeper starts it for a task that asks (documents/directory.py), in the VM's step and with its user's rights, as
the launcher starts those of the VM's boot. Its standard input is the task's connection.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from pcocc_runtime.documents.directory import (
    MAX_DIRECTORY_REQUEST,
    DirectoryAnswer,
    decode_directory_request,
    encode_directory_answer,
)
from pcocc_runtime.errors import PcoccError
from pcocc_runtime.vm import virtiofs


def main() -> int:
    """Read the request, and answer it."""
    with socket.socket(fileno=os.dup(0)) as task:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)  # the server must not hold the connection
        try:
            with socket.socket(fileno=_serve(task.recv(MAX_DIRECTORY_REQUEST))) as server, suppress(OSError):
                socket.send_fds(task, [encode_directory_answer(DirectoryAnswer())], [server.fileno()])
            return 0
        except PcoccError as error:
            answer = DirectoryAnswer(error.message, error.hint or "")
        except (OSError, ValueError) as error:
            answer = DirectoryAnswer(str(error) or "its process failed", "check that the node has one version of pcocc")
        with suppress(OSError):  # the task has gone
            task.sendall(encode_directory_answer(answer))
    return 1


def _serve(data: bytes) -> int:
    request = decode_directory_request(data)
    return virtiofs.start_server(virtiofs.find_program(), request.path, request.readonly, request.base, request.log)

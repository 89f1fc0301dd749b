"""What a task asks for by which a running VM is given a directory of the host, and the answer.

The task connects to a socket in the VM's directory. The VM's keeper has a process of its own begin on each connection
(vm/directory.py), which answers: beside an answer without an error comes a descriptor, the connection to a virtiofsd.
"""

from __future__ import annotations

import json

from pcocc_runtime.documents.record import Record, parse_record

DIRECTORY_SOCKET = "directory"
MAX_DIRECTORY_REQUEST = 1 << 16  # bytes: a path has up to 4,096, and JSON takes six for some


class DirectoryRequest(Record):
    """A directory to serve; `base` begins the name of a socket that is there for a moment, `log` is for complaints."""

    path: str
    readonly: bool
    base: str
    log: str


class DirectoryAnswer(Record):
    """Why a directory is not served, and what to do; empty texts for one that is."""

    error: str = ""
    hint: str = ""


def encode_directory_request(request: DirectoryRequest) -> bytes:
    """Return what a task sends."""
    return json.dumps(request._asdict()).encode()


def decode_directory_request(data: bytes) -> DirectoryRequest:
    """Return what a task has sent; ValueError with a sentence when it is something else."""
    try:
        return parse_record(DirectoryRequest, json.loads(data))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a request for a directory cannot be read: {error}") from None


def encode_directory_answer(answer: DirectoryAnswer) -> bytes:
    """Return what the task gets."""
    return json.dumps(answer._asdict()).encode()


def decode_directory_answer(data: bytes) -> DirectoryAnswer:
    """Return what a task got; ValueError with a sentence when it is something else."""
    try:
        return parse_record(DirectoryAnswer, json.loads(data))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the answer to a request for a directory cannot be read: {error}") from None

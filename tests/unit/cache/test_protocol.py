"""What a launcher hears from the service that caches layers."""

import socket

import pytest

from pcocc_runtime.cache import protocol
from pcocc_runtime.errors import NodeError


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"x" * 70000, "without an end"),
        (b"no json\n", "cannot be read"),
        (b"[1]\n", "cannot be read"),
        (b"[" * 20000 + b"\n", "cannot be read"),
        (b'{"state": 5}\n', "cannot be read"),
        (b'{"state": "copying", "size": "much"}\n', "cannot be read"),
    ],
)
def test_an_answer_that_is_none_is_told(sent: bytes, said: str) -> None:
    """By a service that somebody has taken over, say."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(20)
        theirs.sendall(sent)
        with pytest.raises(NodeError, match=said):
            for _answer in protocol.receive_states(ours):
                pass

"""What a launcher hears from the service that caches layers."""

import os
import socket
import tempfile

import pytest

from pcocc_runtime.cache import protocol
from pcocc_runtime.documents.layer import LayerRequest, LayerState, decode_layer_request, encode_layer_request
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


def test_a_state_arrives_as_it_was_said() -> None:
    ours, theirs = socket.socketpair()
    said = [
        LayerState("waiting"),
        LayerState("copying", 1 << 40),
        LayerState("damaged", 0, "it is not the layer", "fetch it again"),
    ]
    with ours, theirs:
        for state in said:
            protocol.Teller(theirs).say(state)
        assert list(protocol.receive_states(ours)) == said


def test_a_copy_comes_with_its_state() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryFile() as copy:
        protocol.Teller(theirs).say(LayerState("done", fd=copy.fileno()))
        (state,) = protocol.receive_states(ours)
        assert state.fd is not None
        try:
            assert os.path.samestat(os.fstat(state.fd), os.fstat(copy.fileno()))
        finally:
            os.close(state.fd)


LAYER = "0123456789abcdef" * 4


@pytest.mark.parametrize("asked", [LayerRequest(LAYER), LayerRequest(LAYER, True)], ids=["public", "private"])
def test_a_request_arrives_as_it_was_sent(asked: LayerRequest) -> None:
    assert decode_layer_request(encode_layer_request(asked)) == asked


@pytest.mark.parametrize(
    "data",
    [
        b"", b"7", b"[" * 20000, b"{}", b'{"layer": 7}', b'{"layer": "../x"}', b'{"layer": "%s", "private": 1}' % LAYER.encode(),
        b'{"layer": "%s\n"}' % LAYER.encode(),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(NodeError, match="this is not a request for a layer"):
        decode_layer_request(data)

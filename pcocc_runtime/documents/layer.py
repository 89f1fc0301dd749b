"""What a launcher and the service that caches layers for all users of a node say to each other: JSON, a line each.

With a request comes the open source of the layer, and with the `done` of a private one its open copy.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from pcocc_runtime.errors import NodeError
from pcocc_runtime.qemu.qmp import TooLong, Unreadable

if TYPE_CHECKING:
    from pcocc_runtime.qemu.qmp import Message

_UNDER_WAY = ("waiting", "copying")


class LayerRequest(NamedTuple):
    """A layer, by its SHA-256, that is to be cached; a `private` one is for whoever can open its source."""

    layer: str
    private: bool = False


class LayerState(NamedTuple):
    """How far a layer is, bytes so far, and why it has not come; `fd` is a private one's copy.

    `state` is `waiting` or `copying`, and finally `done`, `declined`, `damaged` or `failed`.
    """

    state: str
    size: int = 0
    message: str = ""
    hint: str | None = None
    fd: int | None = None

    @property
    def is_final(self) -> bool:
        """Tell whether nothing more is said of the layer."""
        return self.state not in _UNDER_WAY


def encode_layer_request(request: LayerRequest) -> bytes:
    """Return a launcher's line."""
    return json.dumps(request._asdict()).encode() + b"\n"


def decode_layer_request(data: bytes) -> LayerRequest:
    """Return what a line from anybody asks for; NodeError when it is no request."""
    try:
        tree = json.loads(data)
        layer, private = tree["layer"], tree.get("private", False)
        if re.fullmatch(r"[0-9a-f]{64}", layer) and isinstance(private, bool):
            return LayerRequest(layer, private)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise NodeError("this is not a request for a layer")


def encode_layer_state(state: LayerState) -> bytes:
    """Return the service's line, without the descriptor and what is empty."""
    fields = {key: value for key, value in state._asdict().items() if value and key != "fd"}
    return json.dumps(fields).encode() + b"\n"


def decode_layer_state(message: Message | Unreadable) -> LayerState:
    """Return what a line from the service says; NodeError when it is malformed: the service cannot be trusted."""
    if isinstance(message, TooLong):
        raise NodeError("the image cache sends a line without an end")
    if not isinstance(message, Unreadable):
        get = message.get
        found = LayerState(get("state", "failed"), get("size", 0), get("message", ""), get("hint"))
        texts = (found.state, found.message, found.hint or "")
        if all(isinstance(one, str) for one in texts) and type(found.size) is int:
            return found
    raise NodeError("the answer of the image cache cannot be read")

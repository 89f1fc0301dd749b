"""Devices of a node that a job's user gets: the planner names them; root keeps the list until it takes them back."""

from __future__ import annotations

import json

from pcocc_runtime.documents.record import Record, parse_record
from pcocc_runtime.errors import NodeError


class GivenDevices(Record):
    """The user's number, the devices' paths, and the lines for ip(8) that take the devices off their networks."""

    uid: int
    devices: list[str]
    ip: str


def encode_devices(given: GivenDevices) -> str:
    """Return it as one line of JSON."""
    return json.dumps(given._asdict())


def decode_devices(text: str | bytes) -> GivenDevices:
    """Return what `encode_devices` has encoded; NodeError when it is not that."""
    try:
        return parse_record(GivenDevices, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise NodeError(f"the record of a job's devices cannot be read: {error}") from None

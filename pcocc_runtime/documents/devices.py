"""Devices of a node that a job's user has: the planner names them, and root keeps that until it takes them back."""

from __future__ import annotations

import json

from pcocc_runtime.documents.record import Record, parse_record
from pcocc_runtime.errors import NodeError


class GivenDevices(Record):
    """Who has them, by number; their paths; and the batch of ip(8) that takes them off their networks."""

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

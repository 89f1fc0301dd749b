"""The --pcocc options of one command as they were typed, which the plugin (spank/request.c) hands to the check."""

from __future__ import annotations

import json

from pcocc_runtime.documents.record import Record, parse_record


class TypedOptions(Record):
    """Each option's text, None or empty where it was not given; nothing is checked yet."""

    template: str | None = None
    images: list[str] = []
    mounts: list[str] = []
    user_data: str | None = None
    user_data_force: bool = False
    restart: str | None = None
    checkpoint: str | None = None
    vm: str | None = None


def encode_typed_options(options: TypedOptions) -> str:
    """Return what the plugin would hand over."""
    return json.dumps(options._asdict())


def decode_typed_options(text: str) -> TypedOptions:
    """Return the options; ValueError when the text is not what the plugin writes."""
    return parse_record(TypedOptions, json.loads(text))

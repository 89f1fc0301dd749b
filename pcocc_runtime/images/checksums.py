"""Checksums as people write them."""

from __future__ import annotations

import re

from pcocc_runtime.errors import RequestError

_LENGTHS = {"sha256": 64, "sha512": 128}


def parse_checksum(text: str) -> tuple[str, str]:
    """Return (algorithm, hexadecimal sum) of `sha256:HEX` or `sha512:HEX`; the sum alone will do."""
    name, colon, value = text.rpartition(":")
    algorithm = (
        name.lower() if colon else {length: name for name, length in _LENGTHS.items()}.get(len(value), "")
    )
    if not re.fullmatch(r"[0-9a-fA-F]+", value) or len(value) != _LENGTHS.get(algorithm):
        raise RequestError(
            f"{text[:150]!r} is not a checksum", "write sha256: and 64 digits, or sha512: and 128"
        )
    return algorithm, value.lower()

"""The variables of a batch script, which its batch task hands to the step that runs it in a VM, in a variable."""

from __future__ import annotations

import json

from pcocc_runtime.documents.record import Record, parse_record


class BatchEnvironment(Record):
    """Slurm's and pcocc's variables as the script has them, and the names of those that it must not have."""

    settings: dict[str, str]
    removed: list[str]


def encode_batch_environment(found: BatchEnvironment) -> str:
    """Return it as text."""
    return json.dumps(found._asdict())


def decode_batch_environment(text: str) -> BatchEnvironment:
    """Return what `encode_batch_environment` has encoded; ValueError with a sentence when it is not that."""
    try:
        return parse_record(BatchEnvironment, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the variables of the batch script cannot be read: {error}") from None

"""What a login from outside needs of a job: `@login` writes it on a node, for `pcocc ssh` and the like."""

from __future__ import annotations

import json

from pcocc_runtime.documents.members import Members, decode_members, encode_members
from pcocc_runtime.documents.record import Record

KEY_FILE, HOST_KEY_FILE = "key", "host_key.pub"  # in the job's directory on a node
# in the directory of a VM that goes on from a checkpoint, until it has the job's keys: the key that it knows, and the
# text that it runs to take the others (guest/new_keys.py)
FORMER_KEY_FILE, NEW_KEYS_FILE = "former-key", "new-keys"


class Credentials(Record):
    """The job's private key, its VMs' public host keys (a line each; empty where none is written), and the cluster."""

    key: str
    host_key: str
    members: Members


def encode_credentials(login: Credentials) -> str:
    """Return it as one line."""
    return (
        json.dumps(
            {"key": login.key, "host_key": login.host_key, "members": encode_members(login.members).decode()}
        )
        + "\n"
    )


def decode_credentials(text: str) -> Credentials:
    """Return what `encode_credentials` has encoded; ValueError with a sentence when it is not that."""
    try:
        tree = json.loads(text)
        key, host_key, members = (tree[name] for name in ("key", "host_key", "members"))
        if not all(type(one) is str for one in (key, host_key, members)) or not key.startswith("-----BEGIN "):
            raise ValueError("it has no key")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"a node's answer about logins into the job's VMs cannot be read: {error}") from None
    return Credentials(key, host_key, decode_members(members))

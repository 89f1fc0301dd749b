"""What the starter of a boot step hands to its tasks: the frozen cluster and the job's ssh keys."""

from __future__ import annotations

import base64
import json
import zlib

from pcocc_runtime import __version__
from pcocc_runtime.documents.record import Record, parse_record
from pcocc_runtime.documents.wire import ENV_BOOT
from pcocc_runtime.errors import NodeError, RequestError

BOOT_FILE = "boot"  # in a job's directory: what its boot step was given, with the sizes of tasks
KEY_COMMENT = "pcocc-"  # before the number of the job, at the end of its public keys


class Keys(Record):
    """The job's own ssh keys in OpenSSH's formats: one logs in, the other identifies the VMs.

    `other_hosts` are lines of public keys by which VMs of a checkpoint may still identify themselves.
    """

    user: str
    user_public: str
    host: str
    host_public: str
    other_hosts: str = ""


class Boot(Record):
    """The encoded cluster document, the job's keys, and those that the guests of a checkpoint know until then."""

    cluster: str
    keys: Keys
    former: Keys | None = None


def encode_boot(boot: Boot, version: str = __version__) -> str:
    """Return one word for the environment of the boot step."""
    former = boot.former and boot.former._asdict()
    tree = {"version": version, "cluster": boot.cluster, "keys": boot.keys._asdict(), "former": former}
    return base64.b64encode(zlib.compress(json.dumps(tree).encode())).decode()


def decode_boot(text: str) -> Boot:
    """Return what `encode_boot` has encoded; NodeError when a newer pcocc than this node's wrote it."""
    try:
        tree = json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
        _ensure_not_older(str(tree.get("version", __version__)))
        former = tree.get("former")
        return Boot(str(tree["cluster"]), parse_record(Keys, tree["keys"]), former and parse_record(Keys, former))
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise RequestError(
            f"the variable {ENV_BOOT} of the boot step is damaged ({error})",
            hint="do not start boot steps by hand: use srun --pcocc-vm",
        ) from None


def _ensure_not_older(version: str) -> None:
    """Raise NodeError when this node's pcocc is older than the one that boots the VMs, and may not understand it."""
    theirs, ours = (tuple(int(number) for number in one.split(".")) for one in (version, __version__))
    if ours < theirs:
        raise NodeError(
            f"this node has pcocc {__version__}, which is older than the {version} that boots these VMs",
            hint=(
                "ask the admins to install the same version there; 'pcocc node check --all' names such nodes"
            ),
        )

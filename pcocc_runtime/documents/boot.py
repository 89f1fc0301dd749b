"""What the starter of a boot step hands to its tasks: the frozen cluster and the job's own ssh keys."""

from __future__ import annotations

import base64
import json
import zlib

from pcocc_runtime.documents.wire import ENV_BOOT
from pcocc_runtime.errors import RequestError


def encode_boot(cluster: str, keys: dict[str, str]) -> str:
    """Return one word for the environment of the boot step; `cluster` is the encoded cluster document."""
    return base64.b64encode(zlib.compress(json.dumps({"cluster": cluster, "keys": keys}).encode())).decode()


def decode_boot(text: str) -> tuple[str, dict[str, str]]:
    """Return the encoded cluster document and the keys."""
    try:
        tree = json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
        return str(tree["cluster"]), dict(tree["keys"])
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise RequestError(
            f"the variable {ENV_BOOT} of the boot step is damaged ({error})",
            hint="do not start boot steps by hand: use srun --pcocc-vm",
        ) from None

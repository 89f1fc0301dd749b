"""The ssh keys of one job, made by ssh-keygen."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pcocc_runtime.documents.boot import Keys
from pcocc_runtime.system import process


def make_keys(comment: str) -> Keys:
    """Return two new ed25519 pairs; nothing stays on disk."""
    keys = {}
    with tempfile.TemporaryDirectory(prefix="pcocc-keys-") as directory:
        for name in ("user", "host"):
            path = Path(directory, name)
            process.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
                hint="install openssh-client on this host",
            )
            keys[name] = path.read_text()
            keys[f"{name}_public"] = path.with_suffix(".pub").read_text().strip()
    return Keys(**keys)

"""What the cloud-init that is installed here makes of user-data, beside our vendor-data for the user alice."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

from pcocc_runtime.guest import seed
from tests.unit.guest.cloud_python import start_cloud_python
from tests.unit.guest.guests import ALICE, KEYS


def ask_cloud_init(texts: list[str], command_user: str | None = None) -> list[dict[str, Any]]:
    """Return what cloud-init, as installed here, makes of each text for the user alice."""
    vendor = seed.render_vendor_data(1, "vcluster", ALICE, KEYS, command_user)
    lines = [json.dumps({"user_data": base64.b64encode(text.encode()).decode(), "vendor_data": vendor}) for text in texts]
    argv = [start_cloud_python() / "cloud-python", Path(__file__).with_name("guest_cloud_init.py")]
    done = subprocess.run(argv, input="\n".join(lines), capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def lets_in(found: dict[str, Any], name: str = "alice") -> bool:
    """Tell whether the job's key, and no other, lets one in as a user, whose commands run then."""
    return bool(found["keys"].get(name) == [KEYS.user_public]) and name not in found["shut"]

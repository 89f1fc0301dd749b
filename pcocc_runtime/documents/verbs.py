"""What the commands of VM steps begin with that are operations on the VMs; steps/operations.py says where each runs."""

from __future__ import annotations

BATCH_VERB = "@batch"
NETWORK_VERB = "@netinfo"
SAVE_VERB = "@save"

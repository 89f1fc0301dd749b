"""The words by which a VM step asks for an operation on its VMs; steps/operations.py says where each runs."""

from __future__ import annotations

BATCH_VERB = "@batch"
NETWORK_VERB = "@netinfo"
SAVE_VERB = "@save"

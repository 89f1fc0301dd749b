"""The words by which a VM step asks for an operation on its VMs; steps/operations.py says where each runs."""

from __future__ import annotations

AGENT_VERB = "@agent"
BATCH_VERB = "@batch"
CONSOLE_VERB = "@console"
DISPLAY_VERB = "@display"
DUMP_VERB = "@dump"
LOG_VERB = "@log"
LOGIN_VERB = "@login"
MONITOR_VERB = "@monitor"
NC_VERB = "@nc"
NETWORK_VERB = "@netinfo"
POWER_VERB = "@power"
QMP_VERB = "@qmp"
RESET_VERB = "@reset"
SAVE_VERB = "@save"
SCREENSHOT_VERB = "@screenshot"

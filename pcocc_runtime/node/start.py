"""Root's part of slurmd's start: the tunnels are guarded, and what is of no job any more goes."""

from __future__ import annotations

from pathlib import PurePath

from pcocc_runtime.networks.nft_guard import render_guard
from pcocc_runtime.node import accelerator, planner, records
from pcocc_runtime.node.main import CONFIG_DIR, finish
from pcocc_runtime.node.reclaim import reclaim, set_strays_aside
from pcocc_runtime.system import process, sysctl, trust

_SECONDS = 20.0  # for what users have left in directories
_PROBE_SECONDS = 60.0  # for a verdict on the accelerator: nobody waits for it


def start() -> int:
    """Guard the tunnels first, whatever becomes of the rest; then take back what is of no job any more."""
    narrow: list[str] | None = None if sysctl.read("ipv4/ip_forward") == "1" else []
    process.run(["nft", "-f", "-"], text=render_guard(narrow), hint="install the package nftables")
    records.ensure_state_directory()
    finish(reclaim(), _SECONDS)
    trust.ensure_root_only(CONFIG_DIR)
    with planner.planning("", CONFIG_DIR) as plan:
        offer = plan.hear_offer()
    set_strays_aside(PurePath(offer.scratch))
    finish([PurePath(offer.scratch)], _SECONDS)
    accelerator.find_accelerator(offer.accel, PurePath(offer.qemu), _PROBE_SECONDS)
    return 0

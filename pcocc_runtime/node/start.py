"""Root's part when slurmd starts: tunnels are guarded, and what belongs to no job any more is removed."""

from __future__ import annotations

from pathlib import PurePath

from pcocc_runtime import naming
from pcocc_runtime.documents.work import Act
from pcocc_runtime.networks.nft_guard import plan_rules, render_guard
from pcocc_runtime.node import accelerator, apply, planner, records
from pcocc_runtime.node.main import CONFIG_DIR, finish_removal
from pcocc_runtime.node.reclaim import reclaim, set_strays_aside
from pcocc_runtime.system import process, sysctl, trust

_RESERVED = "ipv4/ip_local_reserved_ports"
_SECONDS = 20.0  # for what users have left in directories
_PROBE_SECONDS = 60.0  # for a verdict on the accelerator: nobody waits for it


def start() -> int:
    """Guard the tunnels first, even if the rest fails; then remove what belongs to no job any more."""
    process.run(["nft", "-f", "-"], text=render_guard())
    shown = process.run(["ip", "-json", "rule", "show"])
    for line, done in plan_rules(shown, None if sysctl.read("ipv4/ip_forward") == "1" else ()):
        apply.run_batch(Act("ip", False, line, done))
    records.ensure_state_directory()
    finish_removal(reclaim(), _SECONDS)
    trust.ensure_root_only(CONFIG_DIR)
    with planner.planning("", CONFIG_DIR) as plan:
        offer = plan.hear_offer()
    _reserve([naming.TUNNEL_PORTS, *(f"{one.low}-{one.high}" for one in offer.ports)])
    accelerator.find_accelerator(offer.accel, PurePath(offer.qemu), _PROBE_SECONDS)
    scratch = PurePath(trust.make_root_only(offer.scratch))
    set_strays_aside(scratch)
    finish_removal([scratch], _SECONDS)
    return 0


def _reserve(ranges: list[str]) -> None:
    """Keep the kernel from choosing these ports for programs that ask for any port (ip_local_reserved_ports)."""
    kept = sysctl.read(_RESERVED)
    sysctl.write(_RESERVED, ",".join([kept, *ranges] if kept else ranges))

"""What `pcocc config check` says of slurm.conf and gres.conf: what they lack for keys of partitions and for devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.functions import kind_of
from pcocc_runtime.networks.infiniband import licence_of
from pcocc_runtime.networks.kinds import FunctionNetwork, InfinibandNetwork
from pcocc_runtime.site.gres_conf import parse_gres_conf
from pcocc_runtime.site.site import Site
from pcocc_runtime.slurm.commands import read_settings
from pcocc_runtime.slurm.text import parse_configuration, parse_licences


def find_slurm_notes(site: Site) -> list[str]:
    """Return what Slurm lacks to give jobs devices and keys of partitions; it is asked only where there are any."""
    networks = [one for one in site.all_networks.values() if isinstance(one, FunctionNetwork)]
    kinds = sorted({kind_of(one.gres) for one in (*networks, *site.devices.values())})
    if not kinds:
        return []
    try:
        settings = parse_configuration(read_settings())
    except NodeError as error:
        return [f"it is not known whether Slurm has what devices need, such as GresTypes: {error.message}"]
    pools = [one for one in networks if isinstance(one, InfinibandNetwork)]
    known = parse_licences(settings.get("Licenses", ""))
    return [
        *(note for one in pools for note in _find_licences(one, known)),
        *_find_types(kinds, settings.get("GresTypes", "")),
        *_find_uncounted(kinds, Path(settings.get("SLURM_CONF", "/etc/slurm/slurm.conf")).with_name("gres.conf")),
    ]


def _find_licences(network: InfinibandNetwork, known: Mapping[str, int]) -> Iterator[str]:
    names = [licence_of(network, key) for key in network.keys]
    missing = ",".join(name for name in names if name not in known)
    if missing:
        yield f"slurm.conf lacks licences for the keys of network {network.name}; add to it: Licenses={missing}"
    shared = ",".join(name for name in names if known.get(name, 1) != 1)
    if shared:
        yield f"slurm.conf must have one of each licence of network {network.name}, or clusters share a key: {shared}"


def _find_types(kinds: list[str], known: str) -> Iterator[str]:
    have = [one.strip() for one in known.split(",") if one.strip()]
    missing = [one for one in kinds if one not in have]
    if missing:
        words = f"slurm.conf lacks GRES of networks and devices: {', '.join(missing)}"
        yield f"{words}; have in it: GresTypes={','.join([*have, *missing])}"


def _find_uncounted(kinds: list[str], path: Path) -> Iterator[str]:
    """Yield lines of gres.conf, where it is on this machine, that do not say which devices there are."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return  # each node may have its own
    for line in parse_gres_conf(text):
        if line.name in kinds and not line.has_files:
            why = f"{path}:{line.number}: GRES {line.name} has no File=, so nobody knows which devices a job has"
            yield f"{why}; 'pcocc node devices' prints the line"

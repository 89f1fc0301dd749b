"""What a plain `srun` pays for the plugin, and what a step in a VM pays beside its ssh."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.figures import Figure, median
from tests.boot.box import HOME, Box
from tests.boot.cluster import make_cluster

INSIDE = (Path(__file__).parent / "inside.py").read_text()
Command = tuple[Sequence[str], Mapping[str, str]]
SSH = (
    "ssh", "-F", "/dev/null", "-e", "none", "-T", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
    "-o", "GlobalKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR",
    "-o", "PreferredAuthentications=publickey", "-o", "GSSAPIAuthentication=no", "-o", "AddressFamily=inet",
    "-o", "KexAlgorithms=curve25519-sha256,ecdh-sha2-nistp256",
)  # fmt: skip


def alternate(box: Box, rounds: int, commands: Sequence[Command], user: str = "alice", node: str = "login") -> list[list[float]]:
    """Run commands in turn inside the box; return the wall seconds of each."""
    words = ["/usr/bin/python3", "-c", INSIDE, str(rounds), json.dumps([[list(argv), dict(env)] for argv, env in commands])]
    taken = json.loads(box.out(words, user=user, node=node))
    assert all(status == 0 for every in taken for _wall, _cpu, status in every), taken
    return [[wall for wall, _cpu, _status in every] for every in taken]


def measure(box: Box, rounds: int) -> list[Figure]:
    """`srun -n1 true` in alternation with the same and an empty plugstack in the client."""
    empty = HOME / "empty.conf"
    text = box.out(["sed", "s,^PlugStackConfig=.*,PlugStackConfig=/dev/null,", "/etc/slurm/slurm.conf"])
    empty.write_text(text + "\n")
    empty.chmod(0o644)
    try:
        mine, bare = alternate(
            box, rounds, [(("srun", "-n1", "true"), {}), (("srun", "-n1", "true"), {"SLURM_CONF": str(empty)})]
        )
    finally:
        empty.unlink()
    ratio = median([a / b for a, b in zip(mine, bare, strict=True)])
    return [
        Figure(
            f"`srun -n1 true`, {rounds} pairs", f"ratio {ratio:.3f} ({median(mine) * 1e3:.0f} ms)",
            f"empty plugstack {median(bare) * 1e3:.0f} ms", "1.02",
        )
    ]  # fmt: skip


def measure_attach(box: Box, rounds: int) -> list[Figure]:
    """A step in a running VM, against a plain step plus ssh by hand in the job's namespace."""
    with make_cluster(box, "--pcocc-template=tiny:1", "-w", "n1") as cluster:
        step = ["srun", "--overlap", "--mem=0", "-n1"]
        environ = {key: value for key, value in cluster.environ.items() if key.startswith("SLURM")}
        vm, plain = alternate(box, rounds, [((*step, "--pcocc-vm=vm0", "true"), environ), ((*step, "true"), environ)])
        hand = ["nsenter", f"--net=/run/netns/pcocc-{cluster.job}", "setpriv", "--reuid=alice", "--regid=alice", "--clear-groups"]
        hand += [*SSH, "-i", f"/run/pcocc/{cluster.job}/key", "alice@10.200.0.1", "true"]
        (ssh,) = alternate(box, rounds, [(hand, {})], "root", "n1")
    more = median(vm) - median(plain) - median(ssh)
    return [
        Figure(
            f"`srun --pcocc-vm true` on a running VM, {rounds} rounds",
            f"{more * 1e3:+.0f} ms ({median(vm) * 1e3:.0f} ms in all)",
            f"plain step {median(plain) * 1e3:.0f} ms, and ssh by hand {median(ssh) * 1e3:.0f} ms", "+60 ms",
        )
    ]  # fmt: skip

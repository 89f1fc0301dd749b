"""The commands of tests/box, except `run`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

from boxlib import cluster, install, nodes, state
from boxlib.state import LOGIN, ROOT, STATE, BoxError


def main(argv: list[str]) -> None:
    """Run one command and exit."""
    options = _parser().parse_args(argv)
    try:
        if os.geteuid() != 0:
            raise BoxError("run as root: the box makes namespaces, users and mounts")
        sys.exit(options.function(options))
    except (BoxError, subprocess.CalledProcessError) as error:
        print(f"box: error: {error}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests/box", description="A Slurm cluster in namespaces of this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="build, install and start what is missing")
    up.add_argument("--nodes", type=int, help="number of nodes (2, or as many as there are)")
    up.add_argument("--cpus", type=int, help="CPUs that each node pretends to have (4)")
    up.add_argument("--no-build", action="store_true", help="take the installed project as it is")
    up.set_defaults(function=run_up)
    down = commands.add_parser("down", help="remove all of it, except the cache of images and the installed project")
    down.add_argument("--purge", action="store_true", help="remove these two as well")
    down.set_defaults(function=run_down)
    commands.add_parser("run", help="run a command as a user on the login side or on a node")
    return parser


def run_up(options: argparse.Namespace) -> int:
    """Bring up the cluster."""
    if shutil.which("slurmctld") is None:
        subprocess.run([ROOT / "tests/prepare"], check=True)
    box = state.read_box()
    before, count = box["nodes"], options.nodes or box["nodes"] or 2
    if not 1 <= count <= 64:
        raise BoxError(f"--nodes {count}: 1 to 64 are possible")
    box |= {"nodes": max(before, count), "cpus": options.cpus or box["cpus"]}
    try:
        cluster.ensure_layout(box["made"])
    finally:
        if STATE.exists():
            state.write_box(box)
    if not options.no_build:
        install.ensure_installed()
    for name in state.node_names(before)[count:]:
        nodes.remove_node(name)
    state.write_box(box | {"nodes": count})
    cluster.ensure_config(count, box["cpus"])
    cluster.ensure_running(count)
    return 0


def run_down(options: argparse.Namespace) -> int:
    """Remove the box."""
    box = state.read_box()
    for name in (*state.node_names(box["nodes"]), LOGIN):
        nodes.remove_node(name)
    nodes.remove_shared()
    cluster.remove_made(box["made"])
    for path in STATE.glob("*"):
        if path.name != "cache" or options.purge:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if options.purge:
        shutil.rmtree(STATE, ignore_errors=True)
        shutil.rmtree(state.PREFIX, ignore_errors=True)
    return 0

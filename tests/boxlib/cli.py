"""The commands of tests/box, except `run`."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys

from boxlib import cluster, install, nodes, second, state, status
from boxlib.state import LOGIN, ROOT, STATE, BoxError


def main(argv: list[str]) -> None:
    """Run one command and exit."""
    options = _parser().parse_args(argv)
    try:
        if os.geteuid() != 0:
            raise BoxError("run as root: the box makes namespaces, users and mounts")
        if options.function in (run_up, run_image, run_restart):
            state.lock()
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
    up.add_argument("--cgroups", choices=cluster.CONFINEMENTS, default="all",
                    help="what Slurm confines tasks to: CPUs and memory (all), devices too, or nothing (disabled)")  # fmt: skip
    up.add_argument("--no-build", action="store_true", help="take the installed project as it is")
    up.set_defaults(function=run_up)
    down = commands.add_parser("down", help="remove all of it, except the cache of images and the installed project")
    down.add_argument("--purge", action="store_true", help="remove these two as well")
    down.set_defaults(function=run_down)
    commands.add_parser("run", help="run a command as a user on the login side or on a node")
    image = commands.add_parser("image", help="build a guest's image, or take it from the cache")
    image.add_argument("name", choices=install.GUESTS)
    image.set_defaults(function=run_image)
    status_ = commands.add_parser("status", help="show daemons, jobs and what pcocc left; fails when something is wrong")
    status_.add_argument("--wait", type=float, metavar="SECONDS", help="wait until no job runs and nothing is left")
    status_.set_defaults(function=run_status)
    commands.add_parser("ps", help="list the processes of the box").set_defaults(function=run_ps)
    restart = commands.add_parser("restart", help="restart slurmctld, munged, or the slurmd of a node")
    restart.add_argument("service", choices=["slurmctld", "slurmd", "munged"])
    restart.add_argument("node", nargs="?", default=LOGIN)
    restart.set_defaults(function=run_restart)
    kill = commands.add_parser("kill", help="send a signal to a daemon, or to the processes that match a regular expression")
    kill.add_argument("--signal", default="KILL", help="name of the signal (KILL)")
    kill.add_argument("--on", default=LOGIN, metavar="NODE", help="a node (the login side)")
    kill.add_argument("what", help="slurmctld, slurmd, munged, or a regular expression for command lines")
    kill.set_defaults(function=run_kill)
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
    cluster.ensure_config(count, box["cpus"], options.cgroups)
    cluster.ensure_running(count)
    return 0


def run_down(options: argparse.Namespace) -> int:
    """Remove the box."""
    if not second.is_entered() and second.PLACE.exists():
        subprocess.run([ROOT / "tests/box", "down"], env={**os.environ, "PCOCC_BOX": second.NAME}, check=True)
        second.remove()
    state.lock()
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


def run_image(options: argparse.Namespace) -> int:
    """Build an image."""
    cluster.ensure_directories()
    print(install.ensure_image(options.name))
    return 0


def run_status(options: argparse.Namespace) -> int:
    """Show what is there; wait for a clean box first if asked."""
    if not state.read_box()["nodes"]:
        print("the box is down")
        return 1
    clean = options.wait is None or status.wait_clean(options.wait)
    return 0 if status.show() and clean else 1


def run_ps(_options: argparse.Namespace) -> int:
    """List the processes of the box."""
    status.show_processes()
    return 0


def run_restart(options: argparse.Namespace) -> int:
    """Restart a daemon, and wait until the nodes are ready."""
    if (options.service == "slurmd") != (options.node != LOGIN):
        raise BoxError("name a node with slurmd, and only with it: tests/box restart slurmd n1")
    nodes.stop_service(options.node, options.service)
    cluster.start_service(options.node, options.service)
    cluster.wait_ready(state.read_box()["nodes"])
    return 0


def run_kill(options: argparse.Namespace) -> int:
    """Send a signal to a daemon or to matching processes, and list them."""
    number = signal.Signals[f"SIG{options.signal.removeprefix('SIG').upper()}"]
    if options.what in ("slurmctld", "slurmd", "munged"):
        pid = state.read_pid(f"{options.on}.{options.what}")
        found = {pid: options.what} if pid else {}
    else:
        found = status.find_processes(options.on, options.what)
    for pid, words in found.items():
        os.kill(pid, number)
        print(f"{number.name} {pid} {words[:200]}")
    return 0 if found else 1

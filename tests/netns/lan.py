"""Hosts on one LAN, and the small programs that talk and listen on them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.netns.fabric import Guest, Node
from tests.waiting import limit

HERE = Path(__file__).parent
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
PYTHON = "/usr/bin/python3"  # which nobody may run too


def join(switch: Node, hosts: dict[str, Node]) -> None:
    """Put hosts, by their addresses, on one switch, each with its eth0."""
    switch.run("sh", "-c", "ip link add sw0 type bridge; ip link set sw0 up")
    for number, (address, host) in enumerate(hosts.items()):
        switch.run("ip", "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", str(host.holder.pid))
        switch.run("ip", "link", "set", f"p{number}", "master", "sw0", "up")
        host.run("sh", "-c", f"ip addr add {address}/24 brd + dev eth0; ip link set eth0 up")


@contextmanager
def started(node: Node, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a node beside the test; it has written `ready` when the block begins."""
    words = ["nsenter", f"--target={node.holder.pid}", "--net", "--mount", *argv]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def listening(guest: Guest) -> AbstractContextManager[list[str]]:
    """Collect the frames that reach a guest, in hex, until one that carries END."""
    return heard_in(guest.node, guest.name)


@contextmanager
def heard_in(node: Node, netns: str) -> Iterator[list[str]]:
    """Collect the frames that reach the eth0 of a namespace on a node, in hex, until one that carries END."""
    heard: list[str] = []
    with started(node, "ip", "netns", "exec", netns, PYTHON, "-IS", str(HERE / "ear.py"), str(limit(20))) as ear:
        yield heard
        assert ear.stdout
        heard += ear.stdout.read().split()
        if not heard or b"END".hex() not in heard[-1]:
            ports = node.run("sh", "-c", "bridge link; nft list ruleset").stdout
            raise AssertionError(f"the honest last frame did not arrive in {limit(20):.0f} s; before it {heard}\n{ports}")


def say(guest: Guest, destination: str, rest: str, text: str) -> None:
    """Send a frame from a guest: its type and what else precedes the text in hex."""
    guest.run(PYTHON, "-IS", str(HERE / "say.py"), destination, rest, text)


def forge(guest: Guest, *names: str) -> None:
    """Send forged frames, by name, from a guest."""
    guest.run(sys.executable, "-m", "tests.netns.forge", *names)


def answering(node: Node, *ports: int, netns: str | None = None) -> AbstractContextManager[subprocess.Popen[str]]:
    """Answer on ports of a node, or of a namespace on it, with the caller's address."""
    inside = ("ip", "netns", "exec", netns) if netns else ()
    return started(node, *inside, PYTHON, str(HERE / "whoami.py"), *map(str, ports))


def ask(where: Node | Guest, *questions: str, prefix: tuple[str, ...] = ()) -> dict[str, str]:
    """Ask `tcp|udp,ADDRESS,PORT[,SOURCE_PORT]` from a node or guest; return the answers there were."""
    text = where.run(*prefix, PYTHON, str(HERE / "ask.py"), *questions).stdout
    return dict(line.split(" ", 1) for line in text.splitlines())

"""Removes a job's networks from a node. Every job waits for its release, so this imports little.

Every removal may be repeated.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Callable

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.nft_text import render_removal
from pcocc_runtime.system import process

_DOOMED = 0x70636F63  # the group of devices that are deleted at once


def remove_networks(job: int) -> None:
    """End and delete everything in and around the job's namespace, but not the namespace."""
    path = naming.netns_path(job)
    built = os.path.exists(path)
    if os.path.ismount(path):  # else a helper was killed before it mounted the namespace
        try:
            end_dnsmasq(job)
            _remove_links(path.name)
        except (NodeError, FileNotFoundError):
            if os.path.ismount(path):  # else what a killed helper had started has just deleted it
                raise
    try:
        _remove_outside(job)
    except NodeError:
        if built:
            raise  # without a namespace, the set-up failed because nft did, and there is no table


def end_dnsmasq(job: int) -> None:
    """End the servers in the job's namespace; one may fork, so they are gone when none is found twice in a row.

    Processes of the job's user are there too, and may have any name: they are left alone.
    """
    empty, owners = 0, {0, naming.dnsmasq_uid(job), pwd.getpwnam("nobody").pw_uid}  # nobody: an earlier version's
    for _ in range(8):
        found = process.find_in_netns(naming.netns_path(job), "dnsmasq", owners)
        process.end(found)
        empty = 0 if found else empty + 1
        if empty == 2:
            return


def _remove_links(netns: str) -> None:
    """Delete every device but lo of a namespace, so that a process still inside keeps no tunnel alive.

    As a group, because the kernel waits for all its CPUs once for each request (unregister_netdevice_many).
    Forced, because a device goes by itself when its other end does.
    """
    names = _list_links(netns)
    if names:
        text = "".join(f"link set dev {name} group {_DOOMED}\n" for name in names) + f"link delete group {_DOOMED}\n"
        _run_ip(["-netns", netns, "-force", "-batch", "-"], lambda: bool(_list_links(netns)), text)


def _list_links(netns: str) -> list[str]:
    links = json.loads(process.run(["ip", "-json", "-netns", netns, "link", "show"]))
    return [link["ifname"] for link in links if link["ifname"] != "lo"]


def _remove_outside(job: int) -> None:
    """Delete the job's table and veth pair from the host's namespace, which the calling thread is in."""
    name = naming.uplink_name(job)
    if _has_device(name):  # else it went with its other end, in the namespace
        _run_ip(["link", "delete", name], lambda: _has_device(name))
    process.run(["nft", "-f", "-"], text=render_removal("inet", naming.host_table(job)))


def _has_device(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def remove_netns(job: int) -> None:
    """Unmount and forget the job's namespace; what is left in it goes with its last process."""
    path = naming.netns_path(job)
    if os.path.exists(path):
        _run_ip(["netns", "delete", path.name], lambda: os.path.exists(path))


def _run_ip(words: list[str], is_there: Callable[[], bool], text: str | None = None) -> None:
    """Delete something by ip(8), which may fail where what a killed helper had started has just deleted it."""
    try:
        process.run(["ip", *words], text=text)
    except NodeError:
        if is_there():
            raise

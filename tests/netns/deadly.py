"""Runs on a node: root's helper, killed after its n-th call that makes or removes something.

Usage: deadly.py VERB N; the request is on stdin.
"""

import os
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Any

from pcocc_runtime import node
from pcocc_runtime.system import files, netlink, process, sysctl

left = int(sys.argv.pop())


def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*words: Any, **more: Any) -> Any:
        global left
        result = real(*words, **more)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


MAKING: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (files, ("replace_file", "ensure_directory", "remove_tree")),
    (process, ("run", "kill")),
    (sysctl, ("write",)),
    (netlink, ("ensure_netns", "ensure_veth", "ensure_address", "remove_link")),
    (netlink.JobNetns, ("ensure_bridge", "ensure_tunnel", "ensure_segment", "ensure_taps", "ensure_port")),
    (pathlib.Path, ("unlink",)),
)
for owner, names in MAKING:
    for name in names:
        setattr(owner, name, deadly(getattr(owner, name)))
sys.exit(node.main(sys.argv[1:]))

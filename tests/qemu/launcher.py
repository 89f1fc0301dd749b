"""What libexec's launch, keeper and attach are, for a source tree that is not installed."""

import os
import sys
from pathlib import PurePath

HERE = PurePath(__file__)
sys.path[:0] = [str(HERE.parents[2]), "/run/pcocc/packages"]

from pcocc_runtime.keeper import main as keeper  # noqa: E402
from pcocc_runtime.vm import launcher  # noqa: E402


def pretend(text: str) -> None:
    """Make the launcher see another machine as its node, all of whose NUMA nodes are really our first one."""
    import json
    from dataclasses import replace
    from typing import Any

    from pcocc_runtime.documents.hardware import Allocation, HostCpu, HostNode

    cpus, nodes, online, topoext = json.loads(text)
    homes = tuple(HostNode(*one[:-1], tuple(one[-1])) for one in nodes)
    part = Allocation(tuple(HostCpu(*one) for one in cpus), homes, online, topoext)
    plan = launcher.plan_hardware

    def plan_here(*arguments: Any) -> Any:
        found = plan(*arguments)
        nodes = tuple(one._replace(host=0) for one in found.topology.nodes)
        return found._replace(topology=replace(found.topology, nodes=nodes))

    launcher.read_part = lambda _cpus: part
    launcher.plan_hardware = plan_here


if sys.argv[1] == "launch":
    if os.environ.get("PRETENDED"):
        pretend(os.environ["PRETENDED"])
    launcher.KEEPER = ("/usr/bin/python3", "-IS", str(HERE), "keeper")
    sys.exit(launcher.main())
if sys.argv[1] == "cache":
    import functools

    from pcocc_runtime.cache import service

    service.read_image_cache = functools.partial(service.read_image_cache, "/run/pcocc/etc")  # type: ignore[attr-defined]
    sys.exit(service.main())
mode = sys.argv.pop(1)
if mode == "attach":
    from pcocc_runtime.steps import main as attach

    if "DIE_AT" in os.environ:
        from tests.qemu import dying

        dying.die_at(int(os.environ["DIE_AT"]))
    sys.exit(attach.main())
sys.exit(keeper.main())

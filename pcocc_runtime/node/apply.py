"""What root does for a job's networks: carries out, one by one, the acts that its planner has left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from itertools import groupby

from pcocc_runtime import naming
from pcocc_runtime.documents.work import Act
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.removing import remove_networks
from pcocc_runtime.node.doing import doing
from pcocc_runtime.node.reclaim import TABLES
from pcocc_runtime.system import confined, files, namespaces, process, sysctl


def make_networks(job: int, acts: Sequence[Act]) -> None:
    """Make a job's namespace and all that is in and around it; what an earlier try has left is removed first."""
    path = naming.netns_path(job)
    if os.path.ismount(path):
        remove_networks(job)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # a helper was killed before it mounted
    for within, some in groupby(acts, key=lambda act: act.inside):
        if within and not os.path.ismount(path):
            namespaces.create(path)  # only now: a release without a namespace does not mind that nft cannot work
        with namespaces.inside(path) if within else contextlib.nullcontext():
            for act in some:
                with doing(f"running {act.kind}"):
                    _carry_out(job, act)


def _carry_out(job: int, act: Act) -> None:
    if act.kind == "nft":
        process.run(["nft", "-f", "-"], text=act.text)
        if not act.inside:
            files.replace_file(naming.STATE_DIR / f"{job}{TABLES}", act.text.encode())
    elif act.kind == "sysctl":
        sysctl.write(act.name, act.text)
    elif act.kind == "keep":
        files.replace_file(naming.STATE_DIR / naming.ABILITIES_FILE, act.text.encode())
    elif act.kind == "devices":
        from pcocc_runtime.node import devices  # here: other jobs do not need it

        devices.give(job, act.text)
    elif act.kind == "dnsmasq":
        uid, user = naming.dnsmasq_uid(job), naming.DNSMASQ_USER
        conf = f"etc/{job}.dnsmasq{act.name}"  # the name tells an admin whose server it is
        passwd = f"root:x:0:0::/:\n{user}:x:{uid}:{uid}::/:\n"
        own = [("etc/passwd", passwd), ("etc/group", f"{user}:x:{uid}:\n"), (conf, act.text)]
        words = ["dnsmasq", f"--conf-file=/{conf}", "--keep-in-foreground", "--pid-file", "--log-facility=-"]
        code, hint = bytes.fromhex(act.code), "install the package dnsmasq-base"
        confined.start_confined(words, own, code, str(naming.STATE_DIR), b"started, version", hint)
    elif act.kind in ("ip", "bridge", "tc"):
        run_batch(act)
    else:
        raise NodeError(f"the planner asks for {act.kind!r}", hint="this is a bug in pcocc: please report it")


def run_batch(act: Act) -> None:
    """Run ip, bridge or tc; an address in use is a tunnel's UDP port, which any user can hold."""
    try:
        process.run([act.kind, "-batch", "-"], text=act.text)
    except NodeError as error:
        if act.name and act.name in error.message:
            return
        if "Address already in use" not in error.message:
            raise
        text = f"{os.uname().nodename} cannot build the job's networks: Address already in use"
        raise NodeError(text, hint=f"see who holds UDP ports of {naming.TUNNEL_PORTS}: ss -lunp") from None

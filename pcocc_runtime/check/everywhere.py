"""The check of all nodes: a step of srun on each, as root, and what a VM says that is booted on request."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pcocc_runtime.documents.node_report import CheckedPoint, NodeReport, decode_report
from pcocc_runtime.documents.wire_steps import OPTION_TEMPLATE
from pcocc_runtime.errors import RequestError, one_line
from pcocc_runtime.findings import FAILED, WELL, Finding
from pcocc_runtime.slurm.commands import list_places
from pcocc_runtime.slurm.steps import run_on_node
from pcocc_runtime.slurm.text import Place
from pcocc_runtime.templates.load import load_templates

_AT_ONCE = 32  # nodes that are asked at the same time


def run_on_nodes(program: str, words: Sequence[str]) -> tuple[list[NodeReport], dict[str, str]]:
    """Run `program` with these words on every node; return the reports in order, and why other nodes have none."""
    places = list_places()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(lambda place: _ask(place, [program, *words]), places))
    reports = [one for one in answers if isinstance(one, NodeReport)]
    return reports, {
        place.node: one for place, one in zip(places, answers, strict=True) if isinstance(one, str)
    }


def _ask(place: Place, command: Sequence[str]) -> NodeReport | str:
    """Return a node's report, or why there is none."""
    options = [f"--partition={place.partition}"] if place.partition else []
    done = run_on_node(place.node, [*options, "--mpi=none", "--input=none", "--chdir=/", *command])
    if done.stdout.lstrip().startswith("{"):
        try:
            return decode_report(done.stdout)
        except ValueError as error:
            return f"its pcocc is of another version: {error}"
    said = done.stderr.strip()
    if "execve" in said and "No such file" in said:
        return f"pcocc is not installed there ({command[0]})"
    lines = [line for line in said.splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else f"srun ended with status {done.returncode} without a message"


def boot_guest(confdir: str, template: str) -> CheckedPoint:
    """Boot a VM of a template on this node as a job of root's; return how it went.

    `template` is empty for the site's first with an image.
    """
    name = template or _find_template(confdir)
    node = os.environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0]
    partition = next((place.partition for place in list_places() if place.node == node), "")
    begin = time.monotonic()
    options = [f"--partition={partition}"] if partition else []
    done = run_on_node(node, [*options, f"--{OPTION_TEMPLATE}={name}", "true"])
    seconds = time.monotonic() - begin
    if done.returncode == 0:
        return CheckedPoint(
            "boot",
            (Finding(WELL, f"a VM of template {name} booted and ran a command after {seconds:.0f} s"),),
        )
    told = (
        [line for line in done.stderr.splitlines() if line.startswith("pcocc: error: ")]
        or done.stderr.splitlines()
        or ["srun said nothing"]
    )
    text = f"a VM of template {name} did not boot: {one_line(told[0].removeprefix('pcocc: error: '))}"
    return CheckedPoint(
        "boot", (Finding(FAILED, text, f"srun -w {node} --{OPTION_TEMPLATE}={name} true, and slurmd's log"),)
    )


def _find_template(confdir: str) -> str:
    every = load_templates(confdir, None, [])
    found = next((name for name, one in sorted(every.items()) if one.values.get("image")), None)
    if found is None:
        raise RequestError("no template of the site has an image to boot", "name one: --boot=TEMPLATE")
    return found

"""`pcocc network` where it is typed: asks every node of a job at once and gathers the answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from pcocc_runtime.documents.node_answer import Failure, NodeAnswer, decode_node_answers
from pcocc_runtime.documents.verbs import NETWORK_VERB
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.slurm.commands import read_controller, read_running, resolve_host
from pcocc_runtime.slurm.steps import run_network_step
from pcocc_runtime.slurm.text import ensure_job_number

_HINT = "'scontrol show job' and slurmd's log on the nodes say more"


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a job's nodes, in their order; `silent` nodes gave none, `failures` says why, if known."""

    nodes: tuple[NodeAnswer, ...]
    silent: tuple[str, ...]
    failures: tuple[str, ...]


def ask_nodes(job: str, words: Sequence[str]) -> Answers:
    """Ask every node of a job; RequestError when it is another user's job, NodeError when no node answers."""
    ensure_job_number(job)
    running = read_running(job)
    if os.geteuid() not in (0, running.uid):
        raise RequestError(f"job {job} is {running.user}'s, and only that user and root can look into it")
    output, complaint = run_network_step(running, [NETWORK_VERB, *words])
    return gather_answers(output, complaint, running.job)


def gather_answers(output: str, complaint: str, job: int) -> Answers:
    """Return what is in the output of the step; `complaint` is what srun wrote to stderr."""
    failures = [line for line in complaint.splitlines() if line.strip()]
    sent = decode_node_answers(output.splitlines())
    nodes = [one for one in sent if isinstance(one, NodeAnswer)]
    failures += [one.sentence for one in sent if isinstance(one, Failure)]
    if not nodes:
        why = failures[0] if failures else "srun ended without a message"
        raise NodeError(f"no node of job {job} answers: {why}", _HINT)
    if any(one.node.job != job or one.node.nodes != nodes[0].node.nodes for one in nodes):
        raise NodeError(
            f"the nodes of job {job} describe it differently",
            "check that all nodes have the same version of pcocc",
        )
    nodes.sort(key=lambda one: one.node.index)
    heard = {one.node.name for one in nodes}
    silent = tuple(one.name for one in nodes[0].node.nodes if one.name not in heard)
    return Answers(tuple(nodes), silent, tuple(failures))


def find_target(typed: str | None) -> str | None:
    """Return ADDRESS[:PORT] of a machine outside that VMs should reach: the one typed, or slurmctld's."""
    if typed is None:
        return read_controller()
    host, colon, port = typed.partition(":")
    address = resolve_host(host) if host else None
    if address is None or (colon and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536)):
        raise RequestError(
            f"--outbound={typed}: this host cannot be resolved",
            "write --outbound=HOST or --outbound=HOST:PORT, IPv4 only"
        )
    return f"{address}:{port}" if colon else address

"""`pcocc network`: draws and checks the networks of a running job."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from pcocc_runtime import errors, terminal  # the rest only where it is used: every `pcocc` imports this

if TYPE_CHECKING:
    from pcocc_runtime.observe.ask import Answers


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add the verbs to the parser of `pcocc network`."""
    parser.description = (
        "Both run a step on all nodes of the job. Its VMs must be running, and you must be its owner or root."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    show = verbs.add_parser("show", help="draw nodes, VMs, interfaces, addresses, tunnels and counters")
    show.set_defaults(run=_show)
    check = verbs.add_parser(
        "check",
        help="test whether VMs, names and other machines answer; exit status 1 when something is broken"
    )
    check.set_defaults(run=_check)
    for verb in (show, check):
        verb.add_argument("-j", "--job", metavar="JOB", help="default: the job you are in")
        verb.add_argument("--json", action="store_true", help="all of it, as JSON")
    check.add_argument(
        "--outbound", metavar="HOST",
        help="HOST[:PORT] outside that VMs should reach; default: ping slurmctld's host"
    )


def _show(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.documents.node_answer import PORTS, SHOW
    from pcocc_runtime.observe import draw
    from pcocc_runtime.observe.ask import ask_nodes

    answers = ask_nodes(_job(arguments), [SHOW, PORTS])
    picture = draw.plan_picture(answers.nodes, answers.silent)
    terminal.write_out(json.dumps(picture, indent=2) + "\n" if arguments.json else draw.render_picture(picture))
    _tell(answers)
    return errors.EXIT_FAILURE if answers.silent else 0


def _check(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.documents.node_answer import CHECK
    from pcocc_runtime.findings import failed
    from pcocc_runtime.observe.ask import ask_nodes, find_target
    from pcocc_runtime.observe.check import evaluate, plan_findings, render_findings

    target = find_target(arguments.outbound)
    answers = ask_nodes(_job(arguments), [CHECK, *([target] if target else [])])
    job, found = answers.nodes[0].node.job, evaluate(answers.nodes, answers.silent, target)
    terminal.write_out(
        json.dumps(plan_findings(job, found), indent=2) + "\n"
        if arguments.json
        else render_findings(job, found)
    )
    _tell(answers)
    return errors.EXIT_FAILURE if failed(found) else 0


def _job(arguments: argparse.Namespace) -> str:
    job: str | None = arguments.job or os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise errors.RequestError("which job? give -j JOB", "squeue shows yours")
    return job


def _tell(answers: Answers) -> None:
    """Pass on what srun and the nodes said, but only when nodes are missing."""
    for line in answers.failures if answers.silent else ():
        terminal.say_note(line)

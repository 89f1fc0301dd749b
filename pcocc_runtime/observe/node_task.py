"""The task of `pcocc network`: what a node knows of the job's networks, asked as the job's user inside its namespace.

A VM step whose command is `@netinfo show [ports]` or `@netinfo check [ADDRESS[:PORT]]`; each task sends one answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pcocc_runtime import addressing, naming
from pcocc_runtime.documents.disks import DISKS_FILE, MAX_DISKS, decode_disks
from pcocc_runtime.documents.node import MAX_NODE, NodeFacts, RoutedFacts, decode_node
from pcocc_runtime.documents.node_answer import (
    CHECK,
    ENDED_STATE,
    PORTS,
    SHOW,
    Failure,
    NetDevice,
    NodeAnswer,
    PortReport,
    ReachReport,
    encode_node_answer,
)
from pcocc_runtime.documents.verbs import NETWORK_VERB
from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.observe.facts import choose_asked, parse_links
from pcocc_runtime.observe.usage import read_usage
from pcocc_runtime.system import process, regular

MOST_ASKED = 256  # VMs that one node asks in one network
_SMALL = 128  # bytes of a packet that passes where anything does
_SSH, _DHCP = 22, 67


def check_words(words: Sequence[str]) -> Sequence[str]:
    """Return the words as they are: `operate` itself refuses wrong ones."""
    return words


def operate(job: int, _vm: str, words: Sequence[str]) -> int:
    """Send what this node knows; a failure is sent too, to be shown beside the other nodes' answers."""
    task = int(os.environ.get("SLURM_PROCID", "0"))
    content: NodeAnswer | Failure
    try:
        content = collect_facts(job, words)
    except (PcoccError, OSError) as error:
        content = Failure(f"{os.environ.get('SLURMD_NODENAME') or os.uname().nodename}: {error}")
    for line in encode_node_answer(task, content):
        os.write(1, f"{line}\n".encode())
    return 0


def collect_facts(job: int, argv: Sequence[str]) -> NodeAnswer:
    """Return this node's part of the job, the devices of its namespace, and who answers in its networks."""
    if argv[:1] not in ([SHOW], [CHECK]) or len(argv) > 2:
        raise RequestError(
            f"usage: {NETWORK_VERB} show [ports] | check [ADDRESS[:PORT]]", "this is what 'pcocc network' runs"
        )
    node = decode_node(regular.read_start(naming.job_dir(job) / naming.NODE_FILE, MAX_NODE + 1), job)
    if argv[0] == SHOW:
        states, own = read_states(node), node.here.ranks
        return NodeAnswer(
            node, read_links(), states, usage=read_usage(job, own), since=read_since(job, states),
            images=read_boot_images(job, own), ports=_ask_ports(node) if argv[1:] == [PORTS] else (),
        )  # fmt: skip
    found = NodeAnswer(node, read_links(), {}, ports=_ask_ports(node))
    return check_networks(found, argv[1] if len(argv) > 1 else None)


def _ask_ports(node: NodeFacts) -> tuple[PortReport, ...]:
    """Return what guests say of their ports; only jobs that are on a fabric load what asks them."""
    if not any(one.guid for every in node.functions.values() for one in every):
        return ()
    from pcocc_runtime.observe.fabric import ask_ports

    return ask_ports(node)


def read_states(node: NodeFacts) -> dict[int, str]:
    """Return the state of each VM of the node, as its keeper has written it, and of others that have ended."""
    own = node.here.ranks
    found = {
        int(path.name[2:]) for path in Path(naming.job_dir(node.job)).glob("vm*") if path.name[2:].isdecimal()
    }
    states = {rank: _read_state(node.job, rank) for rank in sorted({*own, *found & {*range(node.vm_count)}})}
    return {rank: state for rank, state in states.items() if rank in own or state.startswith(ENDED_STATE)}


def _read_state(job: int, rank: int) -> str:
    from pcocc_runtime.documents.vm_state import STATE_FILE, decode_state, explain_end
    from pcocc_runtime.system.watch import is_abandoned

    directory = Path(naming.job_dir(job) / naming.vm_name(rank))
    # asked first: between the two looks, whoever has the watch may write the state and end
    abandoned = is_abandoned(directory)
    try:
        found = decode_state((directory / STATE_FILE).read_text())
    except FileNotFoundError:
        boots = "unwatched: the process that watches it has ended" if abandoned else "booting"
        return boots if directory.is_dir() else "not started"
    except ValueError as error:
        return f"unknown: {error}"
    if found.state == "ended":
        return f"{ENDED_STATE}{explain_end(found.reason)}"
    return found.state if found.state != "silent" else f"silent: no answer within {found.seconds:g} s"


def read_since(job: int, ranks: Iterable[int]) -> dict[int, int]:
    """Return since when each VM has its state, in seconds of the epoch: when its file, or its boot's, was written."""
    from pcocc_runtime.documents.vm_state import STATE_FILE

    found = {}
    for rank in ranks:
        directory = Path(naming.job_dir(job) / naming.vm_name(rank))
        for path in (directory / STATE_FILE, directory / DISKS_FILE):
            try:
                found[rank] = int(path.stat().st_mtime)
                break
            except OSError:
                continue  # it boots, or has not begun to
    return found


def read_boot_images(job: int, ranks: Iterable[int]) -> dict[int, str]:
    """Return what each VM of the node has booted from, an image's name or path, if its launcher has written it."""
    found = {}
    for rank in ranks:
        vm = naming.vm_name(rank)
        try:
            facts = decode_disks(regular.read_start(naming.job_dir(job) / vm / DISKS_FILE, MAX_DISKS), vm)
        except (PcoccError, OSError):
            continue
        found[rank] = facts.origin or facts.image or ""
    return {rank: image for rank, image in found.items() if image}


def read_links() -> dict[str, NetDevice]:
    """Return the devices of the namespace this process is in, by name."""
    text = process.run(["ip", "-json", "-statistics", "link", "show"])
    return parse_links(text)


def check_networks(answer: NodeAnswer, target: str | None) -> NodeAnswer:
    """Return the answer with what was found of VMs, names and the world outside, or why nothing can be asked here."""
    from pcocc_runtime.observe import probes

    node = answer.node
    routed = [one for one in node.networks if isinstance(one, RoutedFacts)]
    try:
        reports = probes.ask_all(routed, lambda one: probe(node, one, target))
    except NodeError as error:
        return replace(answer, trouble=str(error))
    return replace(answer, reports=tuple(reports), dhcp=probes.listens_udp(_DHCP) if routed else None)


def probe(node: NodeFacts, network: RoutedFacts, target: str | None) -> ReachReport:
    """Return what VMs, DNS server and a target outside answer in one network."""
    from pcocc_runtime.observe import probes

    tried = choose_asked(network.ranks, node.ranks_on(network), MOST_ASKED)
    heard = probes.find_all(tried, lambda rank: probes.ping(network.address_of(rank), network.mtu))
    unheard = set(tried) - heard
    narrow = probes.find_all(unheard, lambda rank: probes.ping(network.address_of(rank), _SMALL))
    silent = probes.find_all(
        unheard - narrow, lambda rank: probes.answers_tcp(network.address_of(rank), _SSH)
    )
    wrong = check_names(node, network)
    return ReachReport(
        network=network.index,
        tried=tried,
        lost=frozenset(unheard - narrow - silent),
        narrow=frozenset(narrow),
        silent=frozenset(silent),
        wrong_names=tuple(wrong or ()),
        deaf=wrong is None,
        outbound=check_outbound(node, network, target) if target else None,
    )


def check_names(node: NodeFacts, network: RoutedFacts) -> list[str] | None:
    """Return a sentence for each wrong name or address of this node's VMs; None where DNS does not answer."""
    from pcocc_runtime.observe import probes, resolver

    ranks = sorted({*node.ranks_on(network), *network.ranks[:1], *network.ranks[-1:]})
    pairs = [(f"{naming.vm_name(rank)}.{network.domain}", network.address_of(rank)) for rank in ranks]
    questions = [*pairs, *((address, name) for name, address in pairs)]
    names = {name for name, _address in pairs}

    def ask(pair: tuple[str, str]) -> list[str] | None:
        return (resolver.find_addresses if pair[0] in names else resolver.find_names)(
            network.gateway, pair[0]
        )

    answers = probes.ask_all(questions, ask)
    if None in answers:
        return None
    return [
        f"{asked} is {' and '.join(answer or ()) or 'not known'}, but should be {wanted}"
        for (asked, wanted), answer in zip(questions, answers, strict=True)
        if answer != [wanted]
    ]


def check_outbound(node: NodeFacts, network: RoutedFacts, target: str) -> str | None:
    """Return why a target outside does not answer; empty when it does, None when VMs may not reach it."""
    from ipaddress import IPv4Address

    from pcocc_runtime.observe import probes

    address, _, port = target.partition(":")
    allowed = network.outbound
    if isinstance(allowed, tuple):
        allowed = any(IPv4Address(address) in one for one in allowed)
    if not allowed:
        return None
    source = str(addressing.node_address(network.addresses, node.index))
    if port:
        return "" if probes.answers_tcp(address, int(port), source) else f"{target} takes no connection"
    return "" if probes.ping(address, _SMALL, source) else f"{target} does not answer"

"""Root's short-lived helper on a node: make a job's private networks, release them, reclaim what a kill left.

Called by the plugin from slurmstepd (`setup`, `release`) and from slurmd (`start`); reads its standard input, the
root-owned /etc/pcocc and its own records, nothing else. Every create may be repeated, every release run twice.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath

from pcocc_runtime import naming
from pcocc_runtime.documents import wire
from pcocc_runtime.documents.boot_step import MAX_REQUEST, BootStep, parse_boot_step, parse_fields, parse_number
from pcocc_runtime.errors import NodeError, PcoccError, render
from pcocc_runtime.node.records import (
    Record,
    Yield,
    claim,
    clear_step,
    ensure_state_directory,
    hold,
    lock_of,
    read_record,
    reclaim,
    reclaim_scratch,
    release_job,
    remove_half_records,
    write_record,
)
from pcocc_runtime.system import files, locks, process

_CONFIG_DIR = "/etc/pcocc"


def main(argv: list[str] | None = None) -> int:
    """Run one verb; print the result the plugin reads, or the error its user will read."""
    words = sys.argv[1:] if argv is None else argv
    verbs = {wire.HELPER_SETUP: _setup, wire.HELPER_RELEASE: _release, wire.HELPER_START: _start}
    try:
        if len(words) != 1 or words[0] not in verbs:
            raise NodeError(f"usage: node {'|'.join(verbs)}", hint="this program is called by the pcocc plugin")
        os.umask(0o022)
        verbs[words[0]]()
    except Yield as other:
        if other.step is not None:
            print(f"conflict {other.step}")
        return other.status
    except PcoccError as error:
        print(render(error))
        return 1
    except OSError as error:
        print(f"pcocc: error: {os.uname().nodename}: {error}\nhint: ask the admins to look at this node")
        return 1
    return 0


def _read_request() -> str:
    text = sys.stdin.read(MAX_REQUEST + 1)
    if len(text) > MAX_REQUEST:
        raise NodeError(f"the request of the plugin is longer than {MAX_REQUEST >> 20} MiB", hint="ask for fewer VMs or nodes")
    return text


def _setup() -> None:
    from pcocc_runtime.documents.work import Held
    from pcocc_runtime.node import accelerator, apply, planner

    request = _read_request()
    step = parse_boot_step(request.splitlines())
    _ensure_trusted()
    ensure_state_directory()
    try:
        with planner.planning(request, _CONFIG_DIR) as plan:
            reclaim(except_job=step.job)
            offer = plan.hear_offer()
            with locks.locked(lock_of(step.job)):
                record = claim(step, offer.scratch)
                with _undone_on_failure(step.job):
                    record = hold(record, offer)
                    chosen = accelerator.find_accelerator(offer.accel, PurePath(offer.qemu))
                    work = plan.hear_work(Held(record.nat, chosen.kind, chosen.why))
                    _make_directories(step, PurePath(offer.scratch))
                    apply.make_networks(step.job, work.acts)
                    files.replace_file(naming.job_dir(step.job) / naming.NODE_FILE, work.node.encode(), 0o644)
    except planner.ChargeWanted:
        raise Yield(wire.HELPER_CHARGE) from None
    print(work.answer, end="")


def _ensure_trusted() -> None:
    from pcocc_runtime.system import trust

    trust.ensure_root_only(_CONFIG_DIR)


@contextlib.contextmanager
def _undone_on_failure(job: int) -> Iterator[None]:
    """Leave nothing of a job whose set-up fails."""
    try:
        yield
    except (PcoccError, OSError):
        record = read_record(job)
        if record is not None:
            release_job(record)
        raise


def _release() -> None:
    fields = parse_fields(_read_request().splitlines())
    job = parse_number(fields, "job", naming.MAX_JOB_ID)
    step = parse_number(fields, "step")
    ensure_state_directory()
    with locks.locked(lock_of(job)):
        record = read_record(job)
        if record is None:
            remove_half_records()
            Path(lock_of(job)).unlink(missing_ok=True)
        else:
            _release_step(record, step)


def _release_step(record: Record, step: int) -> None:
    if record.heir == step and process.is_alive(record.stepd):
        write_record(replace(record, heir=None))  # the heir has died first
    elif step in (record.step, record.heir):
        (clear_step if step == record.step and record.heir is not None else release_job)(record)


def _start() -> None:
    from pcocc_runtime.networks.nft_guard import render_guard
    from pcocc_runtime.networks.remove import NFT
    from pcocc_runtime.node import accelerator, planner
    from pcocc_runtime.system import sysctl

    narrow: list[str] | None = None if sysctl.read("ipv4/ip_forward") == "1" else []
    process.run(["nft", "-f", "-"], text=render_guard(narrow), hint=NFT)
    ensure_state_directory()
    reclaim()
    _ensure_trusted()
    with planner.planning("", _CONFIG_DIR) as plan:
        offer = plan.hear_offer()
    reclaim_scratch(Path(offer.scratch))
    accelerator.find_accelerator(offer.accel, PurePath(offer.qemu))


def _make_directories(step: BootStep, scratch: PurePath) -> None:
    os.makedirs(scratch, mode=0o755, exist_ok=True)
    files.ensure_directory(naming.job_dir(step.job), 0o700, step.uid, step.gid)
    files.ensure_directory(scratch / str(step.job), 0o700, step.uid, step.gid)

"""From a request and its templates to the frozen cluster: what the user's files say now is what will run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from pcocc_runtime.documents.cluster import ARRAY_TASK, Cluster, Group, sets_text
from pcocc_runtime.errors import ConfigError, RequestError
from pcocc_runtime.qemu import slots
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.numbers import find_number_notes
from pcocc_runtime.site.check import ensure_devices, find_set
from pcocc_runtime.site.site import Site
from pcocc_runtime.submit import storage
from pcocc_runtime.submit.choose import choose
from pcocc_runtime.submit.request import Request, RequestPart
from pcocc_runtime.submit.submission import Caller, Submission
from pcocc_runtime.submit.user_data import read_user_data
from pcocc_runtime.system import user_files
from pcocc_runtime.templates import inherit
from pcocc_runtime.templates.fill import Filling, has_rank, typed_path
from pcocc_runtime.templates.settings import SETTINGS
from pcocc_runtime.templates.template import Resolved, Template

MAX_SETS = 1024  # what root's helper accepts
_THOROUGH = 4  # VMs whose own user-data is shown to cloud-init, which takes half a second for each


def freeze(
    request: Request, site: Site, every: Mapping[str, Template], caller: Caller, notes: list[str]
) -> Cluster:
    """Return the cluster of a request, adding to `notes`; RequestError or ConfigError when it is not possible."""
    if request.vm_count > site.max_vms:
        asked, most = request.vm_count, site.max_vms
        message = f"{asked} VMs are asked for, but a job of this site can have {most} at most"
        raise RequestError(message, "ask for fewer VMs, or split the work over several jobs")
    path = typed_path(request.user_data, caller.directory, caller.home) if request.user_data else ""
    of_task = path if ARRAY_TASK in path and not user_files.exists(path) else None
    user_data = ("" if of_task else read_user_data(path)) if path else None
    groups: list[Group] = []
    for part in request.parts:
        chosen = inherit.resolve(every, part.template, site.default_set)
        inherit.check_sizes(chosen)
        ensure_devices(site, chosen)
        own = [one for one in (chosen.template, *chosen.sources.values()) if not one.is_site]
        notes += dict.fromkeys(
            note for one in own for note in find_number_notes(one.node) if note not in notes
        )
        resource_set = find_set(site, chosen).name
        for one, filling in _split(part, chosen, caller, sum(group.count for group in groups)):
            submission = Submission(one, request, site, caller, filling, user_data, path, notes)
            group = _freeze_group(submission, resource_set)
            if of_task:
                forced = submission.forces_user_data
                group = replace(group, user_data=None, task_user_data=of_task, task_user_data_forced=forced)
            groups.append(group)
    storage.refuse_double_use(groups)
    for group in groups:
        disks = len(group.persistent) + (group.image is not None)
        nics = _count_cards(site, group.resource_set, group.devices)
        _ensure_slots(group.template, group.disk_model, disks, nics, group.display)
    cluster = Cluster(tuple(groups))
    if len(sets_text(cluster)) > MAX_SETS:
        hint = "name templates with the same resource set one after the other"
        raise RequestError("the list of resource sets is too long for the nodes", hint)
    return cluster


def find_problems(chosen: Resolved, site: Site, caller: Caller, notes: list[str]) -> list[ConfigError]:
    """Return why a template would be refused to this caller, and add to `notes`: each setting is tried by itself."""
    found: list[ConfigError] = []

    def attempt(key: str, action: Callable[[], object]) -> None:
        try:
            with chosen.at(key):
                action()
        except ConfigError as error:
            checks.add_problem(found, error)

    if chosen.values["resource-set"] is not None:
        attempt("resource-set", lambda: find_set(site, chosen))
    values, name = chosen.values, chosen.template.name
    disks = len(values["persistent-drives"]) + bool(values["image"])
    nics = _count_cards(site, values["resource-set"], values["devices"])
    model, display = values["disk-model"], values["remote-display"]
    attempt("devices", lambda: ensure_devices(site, chosen))
    attempt("persistent-drives", lambda: _ensure_slots(name, model, disks, nics, display))
    part = RequestPart(name, 1)
    for row in SETTINGS.values():
        value = values[row.name]
        if row.is_filled and value != row.default:
            filling = _fill_for(chosen, caller, 0 if has_rank(value) else None)
            submission = Submission(part, Request((part,)), site, caller, filling, notes=notes)
            attempt(row.name, partial(choose, submission, row))
    return found


def _split(part: RequestPart, chosen: Resolved, caller: Caller, first: int) -> list[tuple[RequestPart, Filling]]:
    """Return the VMs of a part in groups of equal ones: each alone, from rank `first`, when texts name the rank."""
    if not inherit.needs_rank(chosen):
        return [(part, _fill_for(chosen, caller))]
    one, ranks = RequestPart(part.template, 1), range(first, first + part.count)
    return [(one, _fill_for(chosen, caller, rank, first)) for rank in ranks]


def _freeze_group(submission: Submission, resource_set: str) -> Group:
    part, carried = submission.part, dict[str, object]()
    for row in SETTINGS.values():
        carried |= choose(submission, row)
    return Group(part.template, part.count, resource_set=resource_set, **carried)  # type: ignore[arg-type]


def _count_cards(site: Site, resource_set: str | None, devices: tuple[tuple[str, int], ...]) -> int:
    """Return how many interfaces and devices a VM has."""
    if resource_set not in site.all_sets:
        return sum(count for _name, count in devices)
    one = site.all_sets[resource_set]
    return len(one.networks) + sum(count for _name, count in (*one.devices, *devices))


def _ensure_slots(template: str, disk_model: str, disks: int, nics: int, display: str | None) -> None:
    """Raise RequestError when QEMU would have more devices than its PCI bus has slots."""
    needed, most = slots.count_fixed(disk_model, disks, nics, display), slots.SLOTS - 1  # a bridge takes one
    if needed > most:
        needs = f"{needed} PCI slots for {disks} disks and {nics} networks and devices"
        hint = "use fewer of them, or 'disk-model: virtio-scsi', with which all disks share one slot"
        raise RequestError(f"a VM of template {template!r} would need {needs}, but it has {most}", hint)


def _fill_for(chosen: Resolved, caller: Caller, rank: int | None = None, first: int = 0) -> Filling:
    words = {"user": caller.user, "clusteruser": caller.user, "homedir": caller.home}
    if rank is not None:
        words["vm_rank"] = str(rank)
    thorough = (rank or 0) < first + _THOROUGH
    return Filling(chosen, words, caller.environ, caller.directory, caller.own_home, thorough)

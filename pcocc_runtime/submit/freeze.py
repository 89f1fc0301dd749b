"""From a request and its templates to the frozen cluster document: what the user's files say now is what will run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from pcocc_runtime.documents.cluster import Cluster, Group, sets_text
from pcocc_runtime.errors import ConfigError, RequestError
from pcocc_runtime.qemu import slots
from pcocc_runtime.settings import checks
from pcocc_runtime.site.check import find_set
from pcocc_runtime.site.resource_sets import find_obstacle
from pcocc_runtime.site.site import Site
from pcocc_runtime.submit import storage
from pcocc_runtime.submit.choose import choose
from pcocc_runtime.submit.request import Part, Request
from pcocc_runtime.submit.submission import Caller, Submission
from pcocc_runtime.submit.user_data import read_user_data
from pcocc_runtime.templates import inherit
from pcocc_runtime.templates.fill import Filling, has_rank, typed_path
from pcocc_runtime.templates.settings import SETTINGS
from pcocc_runtime.templates.template import Resolved, Template

MAX_SETS = 1024  # what root's helper accepts
_THOROUGH = 4  # VMs of a template with a user-data each: so many are shown to cloud-init, which takes half a second for one


def freeze(request: Request, site: Site, every: Mapping[str, Template], caller: Caller) -> Cluster:
    """Return the cluster a request comes to; RequestError or ConfigError when it cannot be had."""
    if request.vm_count > site.max_vms:
        message = f"{request.vm_count} VMs are asked for, but a job of this site can have {site.max_vms} at most"
        raise RequestError(message, "ask for fewer VMs, or split the work over several jobs")
    user_data = read_user_data(typed_path(request.user_data, caller.directory, caller.home)) if request.user_data else None
    groups: list[Group] = []
    for part in request.parts:
        chosen = inherit.resolve(every, part.template, site.default_set)
        inherit.check_sizes(chosen)
        resource_set = _choose_set(chosen, site)
        for one, filling in _split(part, chosen, caller, sum(group.count for group in groups)):
            groups.append(_freeze_group(Submission(one, request, site, caller, filling, user_data), resource_set))
    storage.refuse_double_use(groups)
    for group in groups:
        disks, nics = len(group.persistent) + (group.image is not None), len(site.resource_sets[group.resource_set])
        _ensure_slots(group.template, group.disk_model, disks, nics, group.display)
    cluster = Cluster(tuple(groups))
    if len(sets_text(cluster)) > MAX_SETS:
        raise RequestError("the list of resource sets is too long for the nodes",
                           "name templates with the same resource set one after the other")
    return cluster


def find_problems(chosen: Resolved, site: Site, caller: Caller) -> list[ConfigError]:
    """Return why a template would be refused to this caller: each of its settings is tried for itself, with its place."""
    found: list[ConfigError] = []

    def attempt(key: str, action: Callable[[], object]) -> None:
        try:
            with chosen.at(key):
                action()
        except ConfigError as error:
            checks.add_problem(found, error)

    if chosen.values["resource-set"] is not None:
        attempt("resource-set", lambda: _choose_set(chosen, site))
    drives, display = chosen.values["persistent-drives"], chosen.values["remote-display"]
    disks, nics = len(drives) + bool(chosen.values["image"]), len(site.resource_sets.get(chosen.values["resource-set"], ()))
    attempt("persistent-drives", lambda: _ensure_slots(chosen.template.name, chosen.values["disk-model"], disks, nics, display))
    part = Part(chosen.template.name, 1)
    for row in SETTINGS.values():
        value = chosen.values[row.name]
        if row.is_filled and value != row.default:
            submission = Submission(part, Request((part,)), site, caller, _fill_for(chosen, caller, 0 if has_rank(value) else None))
            attempt(row.name, partial(choose, submission, row))
    return found


def _split(part: Part, chosen: Resolved, caller: Caller, first: int) -> list[tuple[Part, Filling]]:
    """Return the VMs of a part, the first of which has that rank, as they are made alike: one by one when texts speak of the rank."""
    if not inherit.needs_rank(chosen):
        return [(part, _fill_for(chosen, caller))]
    return [(Part(part.template, 1), _fill_for(chosen, caller, rank, first)) for rank in range(first, first + part.count)]


def _freeze_group(submission: Submission, resource_set: str) -> Group:
    part, carried = submission.part, dict[str, object]()
    for row in SETTINGS.values():
        carried |= choose(submission, row)
    return Group(part.template, part.count, resource_set=resource_set, **carried)  # type: ignore[arg-type]


def _ensure_slots(template: str, disk_model: str, disks: int, nics: int, display: str | None) -> None:
    """Raise RequestError when QEMU would have more devices than its PCI bus has slots."""
    needed, most = slots.count_fixed(disk_model, disks, nics, display), slots.SLOTS - 1  # one for a bridge
    if needed > most:
        text = f"a VM of template {template!r} would need {needed} PCI slots for {disks} disks and {nics} networks, but it has {most}"
        raise RequestError(text, "use fewer of them, or 'disk-model: virtio-scsi', with which all disks share one slot")


def _choose_set(chosen: Resolved, site: Site) -> str:
    one = find_set(site, chosen)
    reason = find_obstacle(one, site.all_networks)
    if reason:
        raise chosen.error("resource-set", f"resource set {one.name!r} cannot be used: {reason}",
                           f"resource sets that can be used: {', '.join(sorted(site.resource_sets)) or 'none'}")
    return one.name


def _fill_for(chosen: Resolved, caller: Caller, rank: int | None = None, first: int = 0) -> Filling:
    words = {"user": caller.user, "clusteruser": caller.user, "homedir": caller.home}
    if rank is not None:
        words["vm_rank"] = str(rank)
    return Filling(chosen, words, caller.environ, caller.directory, caller.own_home, (rank or 0) < first + _THOROUGH)

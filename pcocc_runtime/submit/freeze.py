"""From a request and its templates to the frozen cluster document: what the user's files say now is what will run."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pcocc_runtime.documents.cluster import Cluster, Group, sets_text
from pcocc_runtime.errors import ConfigError, RequestError
from pcocc_runtime.images import qcow2
from pcocc_runtime.qemu import slots
from pcocc_runtime.settings import checks
from pcocc_runtime.site.check import find_set
from pcocc_runtime.site.limits import Limits
from pcocc_runtime.site.resource_sets import find_obstacle
from pcocc_runtime.site.site import Site
from pcocc_runtime.submit import storage
from pcocc_runtime.submit.request import Part, Request
from pcocc_runtime.submit.user_data import read_template_data, read_user_data
from pcocc_runtime.system import user_files
from pcocc_runtime.templates import inherit
from pcocc_runtime.templates.fill import FILLED, Filling, needs_rank, typed_path
from pcocc_runtime.templates.settings import DEFAULTS, Resolved, Template

MAX_SETS = 1024  # what root's helper accepts
_MAX_CHAIN = 16
_THOROUGH = 4  # VMs of a template with a user-data each: so many are shown to cloud-init, which takes half a second for one


@dataclass(frozen=True, slots=True)
class Caller:
    """Who submits, from where: what '~', '%{user}', relative paths and names of images mean.

    The user and `own_home` are the account's; `home` is what the environment says, as in a shell.
    """

    user: str
    home: str
    own_home: str | None
    directory: str
    environ: Mapping[str, str]
    find_image: Callable[[str], tuple[str, str]]  # the path of the disk that [REPO:]NAME[@REV] means, and REPO:NAME@REV


def freeze(request: Request, site: Site, every: Mapping[str, Template], caller: Caller) -> Cluster:
    """Return the cluster a request comes to; RequestError or ConfigError when it cannot be had."""
    if request.vm_count > site.max_vms:
        message = f"{request.vm_count} VMs are asked for, a job of this site can have {site.max_vms}"
        raise RequestError(message, "ask for fewer VMs, or split the work over several jobs")
    user_data = read_user_data(typed_path(request.user_data, caller.directory, caller.home)) if request.user_data else None
    groups: list[Group] = []
    for part in request.parts:
        groups += _freeze_part(part, request, site, every, caller, user_data, sum(group.count for group in groups))
    storage.refuse_double_use(groups)
    for group in groups:
        disks, nics = len(group.persistent) + (group.image is not None), len(site.resource_sets[group.resource_set])
        _ensure_slots(group.template, group.disk_model, disks, nics, group.display)
    cluster = Cluster(tuple(groups))
    if len(sets_text(cluster)) > MAX_SETS:
        raise RequestError("the resource sets of these VMs change too often to be told to the nodes",
                           "put the templates with the same resource set next to each other")
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
    for key in FILLED:
        others = {name: DEFAULTS[name] for name in FILLED} | {"image": False}
        if chosen.values[key] != DEFAULTS[key]:
            one = replace(chosen, values={**chosen.values, **others, key: chosen.values[key]})
            filling = _fill_for(one, caller, 0 if needs_rank(one) else None)
            attempt(key, lambda filling=filling: _freeze_group(part, Request((part,)), site, filling, caller, None, ""))  # type: ignore[misc]
    return found


def _freeze_part(
    part: Part, request: Request, site: Site, every: Mapping[str, Template], caller: Caller,
    user_data: str | None, first: int,
) -> list[Group]:
    """Return the group of a part, or one for each VM when its template speaks of their ranks."""
    chosen = inherit.resolve(every, part.template, site.default_set)
    inherit.check_sizes(chosen)
    resource_set = _choose_set(chosen, site)
    if not needs_rank(chosen):
        return [_freeze_group(part, request, site, _fill_for(chosen, caller), caller, user_data, resource_set)]
    return [
        _freeze_group(Part(part.template, 1), request, site, _fill_for(chosen, caller, rank, first), caller, user_data, resource_set)
        for rank in range(first, first + part.count)
    ]


def _freeze_group(
    part: Part, request: Request, site: Site, filling: Filling, caller: Caller, user_data: str | None, resource_set: str
) -> Group:
    values = filling.chosen.values
    drives = storage.choose_drives(filling, site.users_may_set)
    image, origin = _choose_image(part, request, filling, caller)
    return Group(
        template=part.template,
        count=part.count,
        image=image,
        origin=origin,
        resource_set=resource_set,
        cpus=values["cpus"],
        memory=values["memory"],
        user_data=user_data if user_data is not None else _read_user_data(filling),
        instance_id=values["instance-id"] and filling.text("instance-id", values["instance-id"]),
        mounts=storage.choose_mounts(filling, request.mounts, site.users_may_set),
        persistent=drives,
        nic_model=values["nic-model"],
        machine=values["machine-type"],
        cpu_model=values["cpu-model"],
        disk_model=values["disk-model"],
        disk_cache=values["disk-cache"],
        custom_args=_choose_arguments(filling, site.users_may_set),
        qemu_bin=_choose_program(filling, site.users_may_set),
        **_choose_kernel(filling, site.users_may_set),
        firmware=values["firmware"],
        display=values["remote-display"],
        emulator_cores=values["emulator-cores"],
        bind_vcpus=values["bind-vcpus"],
        full_node=values["full-node"],
        command_user=values["command-user"],
    )


def _ensure_slots(template: str, disk_model: str, disks: int, nics: int, display: str | None) -> None:
    """Raise RequestError when QEMU would have more devices than its PCI bus has slots."""
    needed, most = slots.count_fixed(disk_model, disks, nics, display), slots.SLOTS - 1  # one for a bridge
    if needed > most:
        text = f"a VM of template {template!r} would need {needed} PCI slots for {disks} disks and {nics} networks, it has {most}"
        raise RequestError(text, "use fewer of them, or 'disk-model: virtio-scsi', where all disks share a slot")


def _choose_arguments(filling: Filling, allowed: Limits) -> tuple[str, ...]:
    key = "custom-args"

    def choose(item: tuple[int, str]) -> str:
        word = filling.text(key, item[1], item[0])
        storage.ensure_word_allowed(filling, key, word, allowed.custom_args, item[0])
        return word

    return tuple(checks.gather(choose, enumerate(filling.chosen.values[key])))


def _read_user_data(filling: Filling) -> str | None:
    with filling.chosen.at("user-data"):
        return read_template_data(filling)


def _choose_program(filling: Filling, allowed: Limits) -> str | None:
    value = filling.chosen.values["qemu-bin"]
    if value is None:
        return None
    path = filling.path("qemu-bin", value)
    storage.ensure_path_allowed(filling, "qemu-bin", path, allowed.qemu_bin)
    return path


def _choose_kernel(filling: Filling, allowed: Limits) -> dict[str, str | None]:
    """Return the fields of the document that say what kernel to boot."""
    value = filling.chosen.values["kernel"]
    if value is None:
        return {}

    def choose(item: tuple[str, str]) -> tuple[str, str | None]:
        name, key = item
        if not value[key]:
            return name, value[key]
        if key == "append":
            return name, filling.text("kernel", value[key], key)
        path = filling.path("kernel", value[key], key)
        with filling.chosen.at("kernel", key):
            user_files.read_start(path, 1, name)
        storage.ensure_path_allowed(filling, "kernel", path, allowed.kernel, key)
        return name, path

    return dict(checks.gather(choose, (("kernel", "path"), ("initrd", "initrd"), ("append", "append"))))


def _choose_set(chosen: Resolved, site: Site) -> str:
    one = find_set(site, chosen)
    reason = find_obstacle(one, site.all_networks)
    if reason:
        raise chosen.error("resource-set", f"resource set {one.name!r} cannot be used: {reason}",
                           f"resource sets that can: {', '.join(sorted(site.resource_sets)) or 'none'}")
    return one.name


def _choose_image(part: Part, request: Request, filling: Filling, caller: Caller) -> tuple[str | None, str | None]:
    value = filling.chosen.values["image"]
    typed = [image for name, image in request.images if name in (None, part.template)]
    if typed:
        named = [image for name, image in request.images if name == part.template]
        image = (named or typed)[-1]
        return _find_disk(filling.typed(image) if "/" in image else image, caller)
    if value is False or (value is None and _boots_without_image(filling.chosen)):
        return None, None
    if value is None:
        raise filling.wrong("image", f"template {part.template!r} has no image",
                            "name one with --pcocc-image=NAME or --pcocc-image=/PATH/TO/DISK.qcow2")
    image = filling.text("image", value)
    if "/" in image and not image.startswith("/"):
        raise filling.wrong("image", f"{image!r} is not an absolute path", "begin it with '/' or '~/', or name an image")
    with filling.chosen.at("image"):
        return _find_disk(image, caller)


def _find_disk(image: str, caller: Caller) -> tuple[str, str | None]:
    """Return the path of the disk that an image's name or path means, and the full name of one in a repository."""
    if "/" not in image:
        return caller.find_image(image)
    disk = user_files.find_last_revision(image)
    if disk:
        raise RequestError(f"image {image} is a directory, as pcocc 0.7 had them", f"import its disk: pcocc image import {disk} NAME")
    _check_image(image, image, 0)
    return image, None


def _boots_without_image(chosen: Resolved) -> bool:
    return bool(chosen.values["persistent-drives"]) or chosen.values["kernel"] is not None


def _check_image(path: str, top: str, depth: int) -> None:
    """Refuse an image that QEMU could not open, or that leads it to something else than local files."""
    if depth > _MAX_CHAIN:
        hint = f"see: qemu-img info --backing-chain {top}; make it one file: qemu-img convert -O qcow2 {top} NEW.qcow2"
        raise RequestError(f"image {top} has more than {_MAX_CHAIN} backing files", hint)
    header = qcow2.parse_header(user_files.read_start(path, qcow2.HEADER_SIZE, "image"), path)
    if header.backing_file is not None:
        below = os.path.join(os.path.dirname(path), header.backing_file)
        if user_files.read_start(below, 4, f"the backing file of image {path},")[:4] == b"QFI\xfb":
            _check_image(below, top, depth + 1)


def _fill_for(chosen: Resolved, caller: Caller, rank: int | None = None, first: int = 0) -> Filling:
    words = {"user": caller.user, "clusteruser": caller.user, "homedir": caller.home}
    if rank is not None:
        words["vm_rank"] = str(rank)
    return Filling(chosen, words, caller.environ, caller.directory, caller.own_home, (rank or 0) < first + _THOROUGH)

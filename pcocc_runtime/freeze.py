"""From a request and its templates to the frozen cluster document: what the user's files say now is what will run."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pcocc_runtime import config, qcow2, resources, templates
from pcocc_runtime.document import Cluster, Group, Mount, sets_text
from pcocc_runtime.errors import ConfigError, RequestError
from pcocc_runtime.request import Part, Request
from pcocc_runtime.system import userfiles
from pcocc_runtime.templates import Resolved, Template

MAX_USER_DATA = 64 * 1024
MAX_SETS = 1024  # what root's helper accepts
_MAX_CHAIN = 16
_DISK_MODELS = {"virtio": "virtio-blk-pci", "ide": "ide-hd"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who submits, from where: what '~', '%{user}', relative paths and names of images mean."""

    user: str
    home: str
    directory: str
    environ: Mapping[str, str]
    find_image: Callable[[str], str]  # the path of the disk that [REPO:]NAME[@REV] means


def freeze(request: Request, site: config.Site, every: Mapping[str, Template], caller: Caller) -> Cluster:
    """Return the cluster a request comes to; RequestError or ConfigError when it cannot be had."""
    if request.vm_count > site.max_vms:
        message = f"{request.vm_count} VMs are asked for, a job of this site can have {site.max_vms}"
        raise RequestError(message, "ask for fewer VMs, or split the work over several jobs")
    user_data = None
    if request.user_data:
        user_data = _read_user_data(_absolute(request.user_data, caller))
    extra = tuple(_option_mount(mount, caller) for mount in request.mounts)
    cluster = Cluster(tuple(_freeze_part(part, request, site, every, caller, user_data, extra) for part in request.parts))
    if len(sets_text(cluster)) > MAX_SETS:
        raise RequestError("the resource sets of these VMs change too often to be told to the nodes",
                           "put the templates with the same resource set next to each other")
    return cluster


def _freeze_part(
    part: Part, request: Request, site: config.Site, every: Mapping[str, Template], caller: Caller,
    user_data: str | None, extra: tuple[Mount, ...],
) -> Group:
    chosen = templates.resolve(every, part.template, site.default_set)
    templates.refuse_unbuilt(chosen)
    values = chosen.values
    return Group(
        template=part.template,
        count=part.count,
        image=_choose_image(part, request, chosen, caller),
        resource_set=_choose_set(chosen, site),
        cpus=values["cpus"],
        memory=values["memory"],
        user_data=user_data if user_data is not None else _template_user_data(chosen, caller),
        instance_id=values["instance-id"],
        mounts=_choose_mounts(chosen, extra, caller),
        nic_model=values["nic-model"],
        machine=values["machine-type"],
        cpu_model=values["cpu-model"],
        disk_model=_disk_model(chosen),
        disk_cache=values["disk-cache"],
        custom_args=tuple(_expand(chosen, "custom-args", word, caller) for word in values["custom-args"]),
        qemu_bin=values["qemu-bin"],
        command_user=values["command-user"],
    )


def _choose_set(chosen: Resolved, site: config.Site) -> str:
    one = config.find_set(site, chosen)
    reason = resources.find_obstacle(one, site.all_networks)
    if reason:
        raise RequestError(f"resource set {one.name!r} of template {chosen.template.name!r} cannot be used: {reason}",
                           f"resource sets that can: {', '.join(sorted(site.resource_sets)) or 'none'}")
    return one.name


def _disk_model(chosen: Resolved) -> str:
    model = chosen.values["disk-model"]
    if model not in _DISK_MODELS:
        raise RequestError(f"template {chosen.template.name!r} sets disk-model {model}, which is not supported yet",
                           f"choose one of: {', '.join(_DISK_MODELS)}")
    return _DISK_MODELS[model]


def _choose_image(part: Part, request: Request, chosen: Resolved, caller: Caller) -> str | None:
    typed = [image for name, image in request.images if name in (None, part.template)]
    if typed:
        named = [image for name, image in request.images if name == part.template]
        image = (named or typed)[-1]
        if "/" in image:
            image = _absolute(image, caller)
    elif chosen.values["image"] is None:
        raise RequestError(f"template {part.template!r} has no image", "name one with --pcocc-image=NAME or --pcocc-image=/PATH/TO/DISK.qcow2")
    else:
        image = _expand(chosen, "image", chosen.values["image"], caller)
    if "/" not in image:
        return caller.find_image(image)
    if not image.startswith("/"):
        raise _wrong(chosen, "image", f"{image!r} is not an absolute path", "begin it with '/' or '~/', or name an image")
    _check_image(image, 0)
    return image


def _check_image(path: str, depth: int) -> None:
    """Refuse an image that QEMU could not open, or that leads it to something else than local files."""
    if depth > _MAX_CHAIN:
        raise RequestError(f"image {path} has more than {_MAX_CHAIN} backing files", "flatten it with qemu-img convert")
    header = qcow2.parse_header(userfiles.read_start(path, qcow2.HEAD_SIZE, "image"), path)
    if header.backing_file is not None:
        below = os.path.join(os.path.dirname(path), header.backing_file)
        if userfiles.read_start(below, 4, f"the backing file of image {path},")[:4] == b"QFI\xfb":
            _check_image(below, depth + 1)


def _template_user_data(chosen: Resolved, caller: Caller) -> str | None:
    value = chosen.values["user-data"]
    if isinstance(value, dict):
        import yaml

        return "#cloud-config\n" + str(yaml.safe_dump(value, sort_keys=False))
    return None if value is None else _read_user_data(_absolute_in(chosen, "user-data", value, caller))


def _read_user_data(path: str) -> str:
    data = userfiles.read_start(path, MAX_USER_DATA + 1, "user-data file")
    if len(data) > MAX_USER_DATA:
        raise RequestError(f"user-data file {path} is larger than {MAX_USER_DATA >> 10} KiB",
                           "let it fetch the rest, for example with cloud-init's '#include'")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"user-data file {path} is not UTF-8 text (byte {error.start})",
                           "compressed and other binary user-data cannot be carried") from None


def _option_mount(mount: Mount, caller: Caller) -> Mount:
    return Mount(mount.tag, _absolute(mount.path, caller), mount.type, mount.readonly)


def _choose_mounts(chosen: Resolved, extra: tuple[Mount, ...], caller: Caller) -> tuple[Mount, ...]:
    """Return the template's mounts and the command's, which win over one with the same tag."""
    own = chosen.values["mount-points"]
    mounts = {
        tag: Mount(tag, _absolute_in(chosen, "mount-points", one["path"], caller), one["type"], one["readonly"])
        for tag, one in own.items()
    }
    mounts |= {mount.tag: mount for mount in extra}
    for mount in mounts.values():
        if mount.type != "9p":
            raise RequestError(f"mount {mount.tag!r} is of type {mount.type}, which is not supported yet",
                               "leave the type out: 9p serves the same directories")
        userfiles.ensure_directory_readable(mount.path, f"mount {mount.tag!r}: directory")
    return tuple(mounts.values())


def _absolute(path: str, caller: Caller) -> str:
    """Return a path typed on a command line, from the caller's directory; the shell leaves TAG=~/x alone."""
    return os.path.normpath(os.path.join(caller.directory, _home(path, caller)))


def _absolute_in(chosen: Resolved, key: str, path: str, caller: Caller) -> str:
    full = _expand(chosen, key, path, caller)
    if not full.startswith("/"):
        raise _wrong(chosen, key, f"{path!r} is not an absolute path", "begin it with '/', '~/' or '%{homedir}/'")
    return full


def _expand(chosen: Resolved, key: str, text: str, caller: Caller) -> str:
    """Return a template's text with `~` and %{...} filled in."""
    known = {"user": caller.user, "clusteruser": caller.user, "homedir": caller.home}

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name in known:
            return known[name]
        if name.startswith("env:"):
            if name[4:] in caller.environ:
                return caller.environ[name[4:]]
            raise _wrong(chosen, key, f"the environment variable {name[4:]} is not set", f"export {name[4:]} and submit again")
        reason = "is not supported yet" if name == "vm_rank" else "is not known"
        raise _wrong(chosen, key, f"%{{{name}}} {reason}", "known: %{env:NAME} %{user} %{homedir} %{clusteruser}")

    return _home(re.sub(r"%\{([^{}]*)\}", fill, text), caller)


def _home(text: str, caller: Caller) -> str:
    return caller.home + text[1:] if text == "~" or text.startswith("~/") else text


def _wrong(chosen: Resolved, key: str, message: str, hint: str) -> ConfigError:
    node = chosen.template.node
    owner: Any = node.value.get(key) if isinstance(node.value, dict) else None
    return owner.error(message, hint) if owner else node.error(f"{message} (in the inherited {key})", hint)

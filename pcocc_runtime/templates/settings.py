"""The settings of templates.yaml, one row each: the row holds or names all code that treats the setting.

See docs/decisions/019. A new setting is a row here, its text in the man page, and its line in the sample; then
`make settings` writes the field that carries it to the nodes.
"""

from __future__ import annotations

from typing import Any

from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Setting
from pcocc_runtime.settings.devices import gres_counts, render_gres_counts
from pcocc_runtime.templates import values
from pcocc_runtime.templates.fill import Filling
from pcocc_runtime.templates.row import Limit, TemplateSetting

_CACHES = checks.choice("writeback", "writethrough", "none", "directsync", "unsafe")
_HOST_PATHS = Limit("host-paths", "below")
_KERNEL = (
    TemplateSetting(
        "path", values.path, required=True, field="kernel", fill=Filling.path, look="file", noun="kernel",
        limit=Limit("kernel"),
    ),
    TemplateSetting(
        "initrd", checks.optional(values.path), field="initrd", fill=Filling.path, look="file", noun="initrd",
        limit=Limit("kernel"),
    ),
    TemplateSetting("append", checks.optional(checks.prose), field="append", fill=Filling.text),
)  # fmt: skip
_MOUNT = (
    TemplateSetting("path", values.path, required=True),
    TemplateSetting("readonly", checks.boolean, default=False),
    TemplateSetting("type", values.mount_type, default="9p"),
)
_DRIVE = (
    TemplateSetting("cache", _CACHES, default="writeback"),
    TemplateSetting("mmp", values.mmp, default="yes"),
    TemplateSetting("backup", checks.optional(checks.text)),  # accepted because pcocc 0.7 had it, and ignored
    TemplateSetting("format", checks.choice("raw", "qcow2"), default="raw"),
)
_ROWS = (
    TemplateSetting(
        "image", values.image, field=("image", "origin"), fill=Filling.image, look="image", noun="image",
        option="image",
    ),
    # the default is the site's; submit/freeze.py carries it, because it concerns more than one VM
    TemplateSetting("resource-set", checks.text),
    TemplateSetting("inherits", checks.text, inherited=False),
    TemplateSetting("description", checks.prose, default="", inherited=False),
    TemplateSetting("cpus", checks.integer(1, 4096), default=1, field="cpus"),
    TemplateSetting("memory", checks.memory, default=0, show=checks.render_memory, field="memory"),
    TemplateSetting(
        "user-data", values.user_data, field="user_data", fill=Filling.path_of_text, look="user-data",
        noun="user-data file", option="user-data",
    ),
    # submit/submission.py reads it together with the option of that name
    TemplateSetting("user-data-force", checks.boolean, default=False),
    TemplateSetting(
        "instance-id", checks.pattern(r"\S{1,128}", "a word"), field="instance_id", fill=Filling.text,
    ),
    TemplateSetting(
        "mount-points", values.mounts(values.path_or_record(_MOUNT)), default={}, field="mounts",
        carried="tuple[Mount, ...]", fill=Filling.path_inside, look="directory", noun="mount {item!r}: directory",
        limit=_HOST_PATHS, option="mount", each=True,
    ),
    TemplateSetting(
        "persistent-drives", values.drives(_DRIVE), default=(), field="persistent",
        carried="tuple[Drive, ...]", fill=Filling.path_inside, look="drive", noun="drive", limit=_HOST_PATHS,
        each=True, places=values.places_of_drives,
    ),
    TemplateSetting(
        "devices", gres_counts, default=(), show=render_gres_counts, field="devices",
        carried="tuple[tuple[str, int], ...]",
    ),
    TemplateSetting("remote-display", checks.choice("vnc", "spice"), field="display"),
    TemplateSetting(
        "custom-args", checks.list_of(checks.prose), default=(), field="custom_args",
        carried="tuple[str, ...]", fill=Filling.text, limit=Limit("custom-args", "text"), each=True,
    ),
    TemplateSetting("qemu-bin", values.path, field="qemu_bin", fill=Filling.path, limit=Limit("qemu-bin")),
    TemplateSetting("kernel", values.path_or_record(_KERNEL), parts=_KERNEL),
    TemplateSetting(
        "nic-model", checks.pattern(r"[A-Za-z0-9._-]{1,64}", "a QEMU device name"), default="virtio-net-pci",
        field="nic_model",
    ),
    TemplateSetting("machine-type", values.machine, default="q35", field="machine"),
    TemplateSetting(
        "cpu-model", checks.pattern(checks.CPU_MODEL, "a QEMU CPU model"), field="cpu_model",
    ),
    TemplateSetting(
        "disk-model", checks.choice("virtio", "virtio-scsi", "ide"), default="virtio", field="disk_model",
    ),
    TemplateSetting("disk-cache", _CACHES, default="unsafe", field="disk_cache"),
    TemplateSetting("emulator-cores", checks.integer(0, 4096), default=0, field="emulator_cores"),
    TemplateSetting("bind-vcpus", checks.boolean, default=True, field="bind_vcpus"),
    TemplateSetting("hugepages", checks.page_size, field="hugepages"),
    TemplateSetting("memory-prealloc", checks.boolean, default=False, field="memory_prealloc"),
    TemplateSetting("memory-lock", checks.boolean, default=False, field="memory_lock"),
    TemplateSetting("full-node", checks.boolean, default=False, field="full_node"),
    TemplateSetting("on-power-off", checks.choice("end", "keep"), default="end", field="on_power_off"),
    TemplateSetting("firmware", checks.choice("bios", "uefi"), default="bios", field="firmware"),
    TemplateSetting("command-user", checks.pattern(values.USER, "a user name"), field="command_user"),
)  # fmt: skip
SETTINGS: dict[str, TemplateSetting] = {row.name: row for row in _ROWS}


def yaml_table() -> tuple[Setting, ...]:
    """Return the keys that a template may have in a file; null brings back a default that a parent has changed."""
    return tuple(Setting(row.name, checks.optional(row.check)) for row in SETTINGS.values())


def default_values(default_set: str | None) -> dict[str, Any]:
    """Return the values of a template that sets nothing, at a site with this default resource set."""
    return {**{name: row.default for name, row in SETTINGS.items()}, "resource-set": default_set}


def limit_keys() -> list[str]:
    """Return what a site can limit, as the keys of users-may-set."""
    rows = (one for row in SETTINGS.values() for one in (row, *row.parts))
    return list(dict.fromkeys(row.limit.key for row in rows if row.limit))

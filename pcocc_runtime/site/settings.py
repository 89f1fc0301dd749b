"""pcocc.yaml: a line for each setting, with its type, its check and its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from pcocc_runtime.documents.image_cache import ImageCache
from pcocc_runtime.networks.kinds import DevicePool
from pcocc_runtime.networks.values import device_pools
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Problems, Setting
from pcocc_runtime.settings.directories import SITE_DIR, read_tree
from pcocc_runtime.settings.tree import Node
from pcocc_runtime.site.limits import Limits, parse_limits

if TYPE_CHECKING:
    from pathlib import PurePath


_IMAGE_CACHE = (Setting("size", checks.space, True), Setting("directory", checks.absolute))


def _image_cache(node: Node) -> ImageCache:
    return ImageCache(**checks.record(_IMAGE_CACHE)(node))


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """What pcocc.yaml says."""

    accel: Annotated[str, checks.choice("auto", "kvm", "tcg")] = "auto"
    qemu: Annotated[str, checks.absolute] = "/usr/bin/qemu-system-x86_64"
    scratch: Annotated[str, checks.absolute] = "/var/lib/pcocc/scratch"
    max_vms: Annotated[int, checks.integer(1, 65536)] = 1024
    boot_timeout: Annotated[int, checks.integer(1, 86400)] = 300
    shutdown_grace: Annotated[int, checks.integer(0, 3600)] = 20  # below the default of Slurm's KillWait
    console_log: Annotated[int, checks.space] = 1 << 20
    hugepages: Annotated[str, checks.page_size] = "off"
    cpu_model: Annotated[str | None, checks.pattern(checks.CPU_MODEL, "a QEMU CPU model")] = None
    network_queues: Annotated[int, checks.integer(1, 256)] = 8
    vhost_net: Annotated[bool, checks.boolean] = True
    devices: Annotated[Mapping[str, DevicePool], device_pools] = field(default_factory=dict)
    image_cache: Annotated[ImageCache | None, _image_cache] = None
    users_may_set: Annotated[Limits, parse_limits] = field(default_factory=Limits)


PCOCC = checks.table_of(SiteSettings)


def read_image_cache(confdir: str | PurePath = SITE_DIR) -> ImageCache | None:
    """Return what pcocc.yaml says of the nodes' image caches, None when they are off; ConfigError if it is wrong."""
    problems: Problems = []
    values = checks.read_mapping(read_tree(f"{confdir}/pcocc.yaml", problems), PCOCC, problems)
    checks.raise_problems(problems)
    return values.get("image-cache")

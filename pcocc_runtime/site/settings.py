"""pcocc.yaml: its keys and what they become."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcocc_runtime.documents.image_cache import ImageCache
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Problems, Setting
from pcocc_runtime.settings.directories import SITE_DIR, read_tree
from pcocc_runtime.settings.tree import Node
from pcocc_runtime.site.limits import parse_limits

if TYPE_CHECKING:
    from pathlib import PurePath


def _image_cache(node: Node) -> ImageCache:
    return ImageCache(**checks.record(_IMAGE_CACHE)(node))


_IMAGE_CACHE = (Setting("size", checks.space, True), Setting("directory", checks.absolute))
PCOCC = (
    Setting("accel", checks.choice("auto", "kvm", "tcg")),
    Setting("qemu", checks.absolute),
    Setting("scratch", checks.absolute),
    Setting("max-vms", checks.integer(1, 65536)),
    Setting("boot-timeout", checks.integer(1, 86400)),
    Setting("shutdown-grace", checks.integer(0, 3600)),
    Setting("image-cache", _image_cache),
    Setting("users-may-set", parse_limits),
)


def read_image_cache(confdir: str | PurePath = SITE_DIR) -> ImageCache | None:
    """Return what pcocc.yaml says of the nodes' image caches, None when they are off; raises the first ConfigError found."""
    problems: Problems = []
    values = checks.read_mapping(read_tree(f"{confdir}/pcocc.yaml", problems), PCOCC, problems)
    checks.raise_problems(problems)
    return values.get("image-cache")

"""Run by Debian's own python3: what cloud-init makes of a user's cloud-config and of vendor-data, as its first stage does.

merge_cloud_config.py DIRECTORY: reads user-data and vendor-data there; prints the configuration that its
modules are given, and the users as its users module reads them, as JSON. The image's own configuration is
like that of Debian's cloud images.
"""

import copy
import json
import sys
import types
from pathlib import Path

from cloud_source import Source
from cloudinit import handlers, helpers, stages
from cloudinit.distros import ug_util
from cloudinit.handlers.cloud_config import CloudConfigPartHandler
from cloudinit.settings import CFG_BUILTIN, PER_INSTANCE

IMAGE = {"users": ["default"], "disable_root": True}
DEFAULT_USER = {"name": "debian", "lock_passwd": True, "groups": ["adm"], "shell": "/bin/bash"}


class Distro:
    """A distribution that has its default user only."""

    def get_default_user(self) -> dict[str, object]:
        return copy.deepcopy(DEFAULT_USER)


def consume(paths: helpers.Paths, name: str, text: str) -> None:
    """Let cloud-init's handler keep a part as handlers.walker_callback does."""
    handler = CloudConfigPartHandler(paths, cloud_config_path=name)
    kind = handlers.type_from_starts_with(text)
    for ctype, payload in ((handlers.CONTENT_START, ""), (kind, text), (handlers.CONTENT_END, "")):
        handler.handle_part(None, ctype, "part-001", payload, None, {})


def consume_vendor_data(paths: helpers.Paths, source: Source, text: str) -> None:
    """Let cloud-init's own first stage decide whether it reads vendor-data at all, and which of it."""

    def walk(_message: str, _handlers: object, _frequency: str, excluded: list[str] | None) -> None:
        if handlers.type_from_starts_with(text) not in (excluded or ()):
            consume(paths, "vendor_cloud_config", text)

    stage = types.SimpleNamespace(_paths=paths, datasource=source, ds=source, cfg=copy.deepcopy(CFG_BUILTIN),  # ds: from 26 on
                                  _default_vendordata_handlers=list, _do_handlers=walk)  # fmt: skip
    stages.Init._consume_vendordata(stage, "vendordata", PER_INSTANCE)


def main() -> None:
    directory = Path(sys.argv[1])
    (directory / "cloud/instances/i").mkdir(parents=True)
    (directory / "cloud/instance").symlink_to("instances/i")
    source = Source()
    paths = helpers.Paths({"cloud_dir": f"{directory}/cloud", "run_dir": f"{directory}/run"}, source)
    consume(paths, "cloud_config", (directory / "user-data").read_text())
    consume_vendor_data(paths, source, (directory / "vendor-data").read_text())
    found = helpers.ConfigMerger(paths, source, [], IMAGE).cfg
    users, _groups = ug_util.normalize_users_groups(copy.deepcopy(found), Distro())
    print(json.dumps({"config": found, "users": users}))


main()

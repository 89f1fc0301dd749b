"""Run by Debian's own python3: what cloud-init makes of whole user-data, from its bytes to the users that it would create.

A line of JSON in for each case, and one out: {"user_data": base64, "vendor_data": text} -> {"raised": the
error that ends its first stage, "keys": the ssh keys of each user made, "shut": who could run no command all the
same, "failed": the modules that fail, "warned": what it logs}. Its own code runs, from the processor of user-data
and its handlers to the modules of users and passwords; only what would change this machine is replaced.
"""

import base64
import contextlib
import copy
import inspect
import json
import logging
import os
import sys
import tempfile
import types
from pathlib import Path
from unittest import mock

from cloud_source import Source
from cloudinit import distros, handlers, helpers, stages, user_data, util
from cloudinit.config import cc_set_passwords, cc_users_groups, cc_write_files
from cloudinit.handlers.cloud_config import CloudConfigPartHandler
from cloudinit.handlers.jinja_template import JinjaTemplatePartHandler
from cloudinit.settings import CFG_BUILTIN, PER_INSTANCE

DEFAULT_USER = {"name": "debian", "lock_passwd": True, "groups": ["adm"], "shell": "/bin/bash"}
IMAGE = {"users": ["default"], "disable_root": True, "system_info": {"default_user": DEFAULT_USER}}
LOG = logging.getLogger("test")


class Warnings(logging.Handler):
    """Keeps what cloud-init warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Other(handlers.Handler):
    """Takes the types of user-data that would run something."""

    prefixes = [
        "#!",
        "#cloud-boothook",
        "text/x-shellscript-per-boot", "text/x-shellscript-per-instance", "text/x-shellscript-per-once",
    ]

    def __init__(self) -> None:
        handlers.Handler.__init__(self, PER_INSTANCE, version=3)

    def handle_part(self, *_args: object) -> None:
        pass


def run_handlers(message: object, paths: helpers.Paths, name: str, excluded: list[str]) -> None:
    """Walk the parts of a message through cloud-init's handlers (stages.Init._do_handlers)."""
    config = CloudConfigPartHandler(paths, cloud_config_path=name)
    every = [config, Other()]
    found = helpers.ContentHandlers()
    for one in [*every, JinjaTemplatePartHandler(paths, sub_handlers=every)]:
        found.register(one, overwrite=False)
        handlers.call_begin(one, None, PER_INSTANCE)
    data = {
        "handlers": found, "handlerdir": paths.cloud_dir, "data": None, "frequency": PER_INSTANCE, "handlercount": 0,
        "excluded": excluded,
    }
    handlers.walk(message, handlers.walker_callback, data)
    handlers.call_end(config, None, PER_INSTANCE)


def read(directory: Path, text: bytes, vendor: str) -> dict[str, object]:
    """Return the configuration that cloud-init's modules are given."""
    (directory / "cloud/instances/i").mkdir(parents=True)
    (directory / "cloud/instance").symlink_to("instances/i")
    (directory / "run").mkdir()
    source = Source()
    paths = helpers.Paths({"cloud_dir": f"{directory}/cloud", "run_dir": f"{directory}/run"}, source)
    instance = Path(paths.get_runpath("instance_data_sensitive"))
    instance.write_text('{"v1": {"local_hostname": "vm0"}}')
    processor = user_data.UserDataProcessor(paths)
    run_handlers(processor.process(text), paths, "cloud_config", [])

    def vendors(_message: str, _handlers: object, _frequency: str, excluded: list[str] | None = None) -> None:
        run_handlers(processor.process(vendor), paths, "vendor_cloud_config", excluded or [])

    stage = types.SimpleNamespace(_paths=paths, datasource=source, ds=source, cfg=copy.deepcopy(CFG_BUILTIN),
                                  _default_vendordata_handlers=list, _do_handlers=vendors)  # fmt: skip
    stages.Init._consume_vendordata(stage, "vendordata", PER_INSTANCE)
    return helpers.ConfigMerger(paths, source, [], copy.deepcopy(IMAGE)).cfg


def make_users(config: dict[str, object], keys: dict[str, list[str]], shut: list[str]) -> None:
    """Have cloud-init's modules of users and passwords make them, with no command run."""

    def is_known(name: str) -> bool:
        if not isinstance(name, str):
            raise TypeError(f"{name!r} is no text")  # as pwd and grp have it
        return name == "root"

    def set_keys(found: set[str], name: str, options: str | None = None) -> None:
        keys[name] = sorted(found)

    def run(argv: list[str], _data: object = None, **_more: object) -> tuple[str, str]:
        [os.fsencode(word) for word in argv]  # as subprocess has it
        if argv[0] == "passwd" and "--expire" in argv:
            shut.append(argv[-1])
        if argv[0] == "useradd" and "--shell" in argv and argv[argv.index("--shell") + 1].endswith("nologin"):
            shut.append(argv[1])
        return "{}", ""

    kind = distros.fetch("debian")
    distro = kind("debian", copy.deepcopy(IMAGE["system_info"]), None)
    with contextlib.ExitStack() as stack:
        for name, value in {
            "cloudinit.subp.subp": run, "cloudinit.subp.which": lambda name: name, "cloudinit.util.is_user": is_known,
            "cloudinit.util.is_group": is_known, "cloudinit.ssh_util.setup_user_keys": set_keys,
            "cloudinit.util.system_is_snappy": lambda: False,
        }.items():  # fmt: skip
            stack.enter_context(mock.patch(name, value))
        for name in ("write_sudo_rules", "write_doas_rules", "_shadow_file_has_empty_user_password"):
            if hasattr(kind, name):
                stack.enter_context(mock.patch.object(kind, name, lambda *_args: False))
        cloud = types.SimpleNamespace(distro=distro, get_public_ssh_keys=list)
        more = [LOG] if "log" in inspect.signature(cc_users_groups.handle).parameters else []
        stack.enter_context(mock.patch.object(cc_set_passwords, "handle_ssh_pwauth"))
        try:
            cc_users_groups.handle("users", copy.deepcopy(config), cloud, *more, [])
        finally:  # each module runs, whatever becomes of the others
            with contextlib.suppress(Exception):
                cc_set_passwords.handle("passwords", config, cloud, *more, [])


def find_failures(config: dict[str, object]) -> list[str]:
    """Return the modules that fail, of those that do nothing but read their part of the configuration."""
    failed = []
    for key in ("runcmd", "bootcmd"):
        try:
            util.shellify(config.get(key, []))
        except TypeError:
            failed.append(key)
    cloud = types.SimpleNamespace(distro=types.SimpleNamespace(default_owner="root:root"))
    more = [LOG] if "log" in inspect.signature(cc_write_files.handle).parameters else []
    try:
        encode = mock.Mock(side_effect=lambda _path, content, **_more: util.encode_text(content))  # as it begins
        with mock.patch("cloudinit.util.write_file", encode), mock.patch("cloudinit.util.chownbyname"):
            cc_write_files.handle("write_files", config, cloud, *more, [])
    except Exception:
        failed.append("write_files")
    return failed


def judge(case: dict[str, str]) -> dict[str, object]:
    keys: dict[str, list[str]] = {}
    shut: list[str] = []
    warnings, failed, raised = Warnings(), [], ""
    root = logging.getLogger()
    root.handlers, root.level = [warnings], logging.WARNING
    with tempfile.TemporaryDirectory() as directory:
        try:
            config = read(Path(directory), base64.b64decode(case["user_data"]), case["vendor_data"])
        except Exception as error:
            return {"raised": f"{type(error).__name__}: {error}", "keys": {}, "shut": [], "failed": [], "warned": warnings.lines}
        try:
            make_users(copy.deepcopy(config), keys, shut)
        except Exception as error:
            failed.append(f"users: {type(error).__name__}: {error}")
        failed += find_failures(copy.deepcopy(config))
    return {"raised": raised, "keys": keys, "shut": shut, "failed": failed, "warned": warnings.lines}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(judge(json.loads(line))), flush=True)


main()

"""Hooks of a site: in order, with the cluster on stdin, and a failure is a sentence that names the hook."""

import json
from pathlib import Path

import pytest

from pcocc_runtime.documents.cluster import Cluster, Drive, Group, Mount
from pcocc_runtime.documents.hook import decode_hook_cluster, encode_hook_cluster, plan_hook_cluster
from pcocc_runtime.errors import RequestError
from pcocc_runtime.site import hooks

CLUSTER = Cluster((
    Group("debian", 2, image="/img/debian", origin="site:debian@3", cpus=2, memory=512, mounts=(Mount("data", "/data"),)),
    Group("bare", 1, image="/img/bare", persistent=(Drive("/home/drive"),)),
))  # fmt: skip


def write(confdir: Path, name: str, text: str, mode: int = 0o755) -> Path:
    path = confdir / "hooks/submit.d" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def test_a_hook_is_told_of_every_vm() -> None:
    told = plan_hook_cluster(hooks.SUBMIT, "alice", None, CLUSTER)
    assert (told.point, told.job, told.user) == ("submit", None, "alice")
    assert [(vm.name, vm.template, vm.image) for vm in told.vms] == [
        ("vm0", "debian", "site:debian@3"), ("vm1", "debian", "site:debian@3"), ("vm2", "bare", "/img/bare"),
    ]  # fmt: skip
    assert told.vms[0].mounts == {"data": "/data"} and told.vms[2].drives == ("/home/drive",)
    text = encode_hook_cluster(told)
    assert decode_hook_cluster(text) == told and text.count("\n") == 1
    assert {"version": 1, "point": "submit", "job": None, "user": "alice"}.items() <= json.loads(text).items()


def test_hooks_run_in_the_order_of_their_names(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(tmp_path, "20-second", f"echo second >>{out}")
    write(tmp_path, "10-first", f"cat >>{out}")
    write(tmp_path, ".hidden", "exit 1")
    write(tmp_path, "30-off", "exit 1", 0o644)
    told = plan_hook_cluster(hooks.SUBMIT, "alice", 7, CLUSTER)
    hooks.run_hooks(str(tmp_path), told)
    first, second = out.read_text().splitlines()
    assert decode_hook_cluster(first) == told and second == "second"
    hooks.run_hooks(str(tmp_path / "nowhere"), told)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "echo of no interest >&2; printf 'no GPU\\033[2J today\\n' >&2; exit 3",
            "refuses: no GPU?[2J today",
        ),
        ("exit 3", "refuses: it ended with status 3"),
        ("sleep 60", "does not end within 1 s"),
    ],
)
def test_a_failure_names_the_hook(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, "10-check", text)
    with pytest.raises(RequestError) as raised:
        hooks.run_hooks(
            str(tmp_path), plan_hook_cluster(hooks.SUBMIT, "alice", None, CLUSTER), seconds=1
        )
    assert f"the site's hook {path} {said}" in str(raised.value)


def test_a_hook_without_an_interpreter(tmp_path: Path) -> None:
    path = write(tmp_path, "10-check", "")
    path.write_text("#!/no/such/shell\n")
    with pytest.raises(RequestError, match="cannot be run"):
        hooks.run_hooks(str(tmp_path), plan_hook_cluster(hooks.SUBMIT, "alice", None, CLUSTER))

"""`%a` in typed paths: the number of an array's task, filled in when that boots."""

import gzip
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime.documents import wire, wire_steps
from pcocc_runtime.documents.cluster import Checkpoints, Cluster, Group, Mount, decode_cluster, encode_cluster
from pcocc_runtime.errors import RequestError
from pcocc_runtime.slurm.text import JobFacts
from pcocc_runtime.system import accounts
from pcocc_runtime.vm import starter
from pcocc_runtime.vm.array_task import fill_array_task
from tests.unit.fake_site import Ask, noted, refused

LOCKS_OUT = "#cloud-config\nusers: alice\n"
TOLD = "#cloud-config\nruncmd: [a]\nruncmd: [b]\n"
FACTS = JobFacts(7, 1, 1, 0, 0, 3)


def read(directory: Path, group: Group, task: int | None, notes: list[str] | None = None) -> Group:
    text, facts = encode_cluster(Cluster((group,))), replace(FACTS, array_task=task)
    [found] = starter.read_filled_cluster(text, facts, accounts.user_name(), [] if notes is None else notes).groups
    return decode_cluster(encode_cluster(Cluster((found,)))).groups[0]


def of_task(directory: Path, data: bytes, **options: object) -> Group:
    """Return a group whose user-data is that of the array's task 3."""
    (directory / "user-3").write_bytes(data)
    return Group("t", 2, task_user_data=f"{directory}/user-%a", **options)  # type: ignore[arg-type]


def test_each_task_is_stored_in_a_directory_of_its_own() -> None:
    def fill(directory: str, task: int | None) -> str | None:
        cluster = Cluster((Group("t", 1),), checkpoints=Checkpoints(directory, 60))
        found = fill_array_task(cluster, task, lambda path: False, lambda path, group: "").checkpoints
        return found and found.directory

    assert (fill("/d/%a", 3), fill("/d", None)) == ("/d/3", "/d")
    for directory, task, said in (("/d", 3, "would be stored in /d"), ("/d/%a", None, "but this job is not one")):
        with pytest.raises(RequestError, match=said):
            fill(directory, task)


def test_paths_have_the_number_of_the_task(tmp_path: Path) -> None:
    (tmp_path / "of-%a").mkdir()
    mounts = (Mount("a", f"{tmp_path}/in-%a/x%a"), Mount("b", f"{tmp_path}/of-%a"), Mount("c", "/usr"))
    group = of_task(tmp_path, b"#cloud-config\n", mounts=mounts)
    found = read(tmp_path, group, 3)
    assert [mount.path for mount in found.mounts] == [f"{tmp_path}/in-3/x3", f"{tmp_path}/of-%a", "/usr"]
    assert (found.user_data, found.task_user_data) == ("#cloud-config\n", None)
    with pytest.raises(RequestError, match=f"user-data file {tmp_path}/user-4 cannot be read"):
        read(tmp_path, group, 4)


def test_a_job_that_is_no_task_has_no_such_number(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"--pcocc-mount=a: /x/%a has %a, .* this job is not one"):
        read(tmp_path, Group("t", 1, mounts=(Mount("a", "/x/%a"),)), None)
    with pytest.raises(RequestError, match="--pcocc-user-data: /x/%a has %a"):
        read(tmp_path, Group("t", 1, task_user_data="/x/%a"), None)
    assert read(tmp_path, Group("t", 1, user_data="%a"), None).user_data == "%a"


@pytest.mark.parametrize(
    "data",
    [
        b"a" * 65537, b"a\xff", gzip.compress(b"#!/bin/sh\n")[:-9], gzip.compress(b"x" * 65537), LOCKS_OUT.encode(),
        gzip.compress(LOCKS_OUT.encode()), b"#cloud-config\na: [\n", b"# cloud-config\nusers: [a]\n",
        b"MIME-Version: 1.0\nContent-Type: text/cloud-config\n\nusers: alice\n",
    ],
    ids=[
        "too large", "no text", "packed and cut", "packed and too large", "locks out", "packed, locks out", "no YAML",
        "no header", "MIME",
    ],
)  # fmt: skip
def test_what_a_submission_refuses_is_refused_in_the_same_words(ask: Ask, tmp_path: Path, data: bytes) -> None:
    group = of_task(tmp_path, data)
    said = refused(ask("tiny", user_data=f"{tmp_path}/user-3"))
    with pytest.raises(RequestError) as error:
        read(tmp_path, group, 3)
    assert said == f"pcocc: error: {error.value}\nhint: {error.value.hint}"


def test_what_is_packed_is_unpacked(ask: Ask, tmp_path: Path) -> None:
    assert read(tmp_path, of_task(tmp_path, gzip.compress(b"#!/bin/sh\n")), 3).user_data == "#!/bin/sh\n"


@pytest.mark.parametrize(("text", "forced"), [(TOLD, False), (LOCKS_OUT, True)])
def test_what_a_submission_notes_is_noted_once(ask: Ask, tmp_path: Path, text: str, forced: bool) -> None:
    group, notes = of_task(tmp_path, text.encode(), task_user_data_forced=forced), list[str]()
    said = noted(ask("tiny", user_data=f"{tmp_path}/user-3", user_data_force=forced))
    for _ in range(2):
        assert read(tmp_path, group, 3, notes).user_data == text
    assert notes and "\n".join(notes) == said


def test_the_guests_user_that_commands_run_as_counts(tmp_path: Path) -> None:
    group = of_task(tmp_path, b"#cloud-config\nusers: [{name: bob, ssh_redirect_user: true}]\n")
    assert read(tmp_path, group, 3).user_data
    with pytest.raises(RequestError, match="cloud-init would not make 'bob', the user that commands run as in the VM"):
        read(tmp_path, replace(group, command_user="bob"), 3)


def test_the_starter_tells_the_user_before_it_boots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = list[str]()
    monkeypatch.setattr(starter, "read_job", lambda _job: FACTS)
    monkeypatch.setattr(starter, "report", words.append)
    monkeypatch.setattr(sys, "argv", ["boot", "7"])
    monkeypatch.setenv(wire.ENV_CLUSTER, encode_cluster(Cluster((of_task(tmp_path, LOCKS_OUT.encode()),))))
    assert starter.main() == 1
    assert words == [wire_steps.BOOT_FAILED]
    assert capfd.readouterr().err.startswith(f"pcocc: error: user-data file {tmp_path}/user-3:2: users")

"""Which job is meant, and the files for logging in to it: they are asked for once, belong to the user, and go with the job."""

import os
import subprocess
from pathlib import Path

import pytest

from pcocc_runtime.cli import getting_in, login
from pcocc_runtime.cli import main as cli
from pcocc_runtime.documents.login import Credentials, decode_credentials, encode_credentials
from pcocc_runtime.documents.members import Members
from pcocc_runtime.errors import PcoccError
from pcocc_runtime.slurm.text import Listed, Running

MEMBERS = Members(
    networks=(), ports=(), users=((2, "alice"),), vms=2, nodes=(("n1", (0, 1)),), boot_timeout=300
)
LOGIN = Credentials("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "ssh-ed25519 AAAA", MEMBERS)


def listed(job: int) -> Listed:
    return Listed(job, str(job), "alice", "main", "1:00", "name", 2, "n1")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """A home, jobs 12 and 13 with VMs, and the steps that were run."""
    steps: list[list[str]] = []

    def ask(argv: list[str]) -> subprocess.CompletedProcess[str]:
        steps.append(argv)
        return subprocess.CompletedProcess(argv, 0, encode_credentials(LOGIN), "")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(login, "list_running", lambda _user: (listed(12), listed(13)))
    monkeypatch.setattr(
        login,
        "find_own_job",
        lambda job: Running(int(job), "alice", os.geteuid(), 0, 1, "n1", "RUNNING", f"{job}.0-2026"),
    )
    monkeypatch.setattr(login, "ask_vm_step", ask)
    monkeypatch.setattr(login, "read_settings", lambda: "ClusterName             = box\n")
    return steps


def test_the_job_that_is_meant(asked: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert login.find_job("7") == login.find_job("7", ["7", ""]) == login.find_job(None, ["7"]) == "7"
    assert login.find_vms("vm0.7", None) == ("7", "vm0") and login.find_vms("vm[0-3]", "7") == (
        "7",
        "vm[0-3]",
    )
    for typed, named, said in [
        ("7", ["8"], "one job at a time"),
        (None, [], "VMs of yours run in 2: 12, 13"),
    ]:
        with pytest.raises(PcoccError, match=said):
            login.find_job(typed, named)
    monkeypatch.setattr(login, "list_running", lambda _user: (listed(12),))
    assert login.find_job(None) == "12"
    monkeypatch.setattr(login, "list_running", lambda _user: ())
    with pytest.raises(PcoccError, match="you have no job with running VMs"):
        login.find_job(None)
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    assert login.find_job(None) == "9"
    for vms in ("vm", "vm[0-", "root@vm0", "vm0:x", "vm0.x"):
        with pytest.raises(PcoccError):
            login.find_vms(vms, "7")


def test_a_key_is_asked_for_once_and_kept_private(asked: list[list[str]], tmp_path: Path) -> None:
    old = tmp_path / ".pcocc/logins/11.0-2025"
    old.mkdir(parents=True)
    (old / "cluster").write_text("box")
    other = tmp_path / ".pcocc/logins/10.0-2025"
    other.mkdir()
    (other / "cluster").write_text("another")
    found = login.ensure_login("12")
    assert login.ensure_login("12").login == found.login == LOGIN and len(asked) == 1 and "@login" in asked[0]
    kept = tmp_path / ".pcocc/logins/12.0-2026"
    assert {path.name for path in kept.iterdir()} == {"key", "known_hosts", "config", "cluster", "login"}
    assert {path.stat().st_mode & 0o777 for path in kept.iterdir()} == {
        0o600
    } and kept.stat().st_mode & 0o777 == 0o700
    assert (kept / "key").read_text() == LOGIN.key and not old.exists() and other.exists()
    found.ensure_vm("vm1")
    with pytest.raises(PcoccError, match="job 12 has no vm2"):
        found.ensure_vm("vm2")


def test_a_job_that_does_not_tell_is_asked_everywhere(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(
            argv, 1, "", "pcocc: error: the VMs of job 12 are not running on this node\n"
        )

    monkeypatch.setattr(login, "ask_vm_step", silent)
    monkeypatch.setattr(login, "run_network_step", lambda _running, _words: (encode_credentials(LOGIN), ""))
    assert login.ensure_login("12").login == LOGIN
    monkeypatch.setattr(login, "run_network_step", lambda _running, _words: ("", "x"))
    with pytest.raises(
        PcoccError, match="the ssh key of job 13 cannot be fetched: the VMs of job 12 are not running"
    ):
        login.ensure_login("13")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"key": 1, "host_key": "", "members": ""}',
        '{"key": "x", "host_key": "", "members": ""}',
    ],
)
def test_what_is_no_login(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        decode_credentials(text)


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        ("ssh -j 12 -A vm0 ls -l", "ssh -F CONFIG -A vm0 ls -l"),
        ("ssh -p 22 root@vm1.12 -v", "ssh -F CONFIG -p 22 root@vm1.12 -v"),
        ("scp -j12 -r dir vm0:/tmp/vm1:x", "scp -F CONFIG -r dir vm0:/tmp/vm1:x"),
        ("rsync --job=12 -a vm1:x .", "rsync -e ssh -F CONFIG -a vm1:x ."),
    ],
)
def test_options_are_passed_on(
    asked: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, argv: str
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(getting_in, "_become", lambda argv: became.append(list(argv)) or 0)
    assert cli.main(words.split()) == 0
    assert " ".join(became[0]) == argv.replace("CONFIG", str(tmp_path / ".pcocc/logins/12.0-2026/config"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ssh", "a VM is missing"),
        ("ssh -j 12", "a VM is missing"),
        ("ssh host", "'host' is not a VM"),
        ("ssh vm0:x", "'vm0:x' is not a VM"),
        ("ssh -F mine vm0", "-F would replace the configuration"),
        ("ssh -j 12 vm7", "job 12 has no vm7"),
        ("ssh vm0", "which job? VMs of yours run in 2"),
        ("scp a b", "no VM is named"),
        ("scp vm0.12:a vm0.13:b", "one job at a time"),
    ],
)
def test_what_cannot_be_is_said_with_the_status_of_ssh(
    asked: list[list[str]], capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    assert cli.main(words.split()) == 255
    assert said in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("disk detach -t abc vm0 disk1", "'abc' is not a number of seconds"),
        ("disk attach vm0 ,format=raw", "names no drive"),
        ("power off -t 0 vm0", "'0' is not a number of seconds"),
        ("power cycle -t 99999999 vm0", "'99999999' is not a number of seconds"),
        ("qmp vm0 {}", "not a QMP command"),
        ("agent vm0 ping [1]", "is not a mapping in JSON"),
        ("log -n abc vm0", "'abc' is not a number of lines"),
        ("nc vm0 http", "'http' is not a port"),
    ],
)
def test_wrong_words_are_refused_before_a_job_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    monkeypatch.setattr("pcocc_runtime.system.process.run", lambda argv, **_more: pytest.fail(f"{argv} was run"))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")  # of the step around the command
    assert cli.main([*line.split(), "-j", "7"]) == 1
    assert message in capsys.readouterr().err

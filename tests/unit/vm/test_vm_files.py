"""What is found on a node, and who may use it: descriptors of QEMU's packages, locks, memory, cloud-init's own check."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pcocc_runtime.errors import NodeError
from pcocc_runtime.submit import cloud_init
from pcocc_runtime.system import accounts, qemu_descriptors
from pcocc_runtime.vm import drive_locks, host_memory, virtiofs
from tests.unit.fake_site import Ask, frozen, refused, user_template
from tests.waiting import limit

ROOT = Path(__file__).resolve().parents[3]


def test_descriptors_come_in_order_and_the_admins_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("etc", "usr"):
        (tmp_path / name / "firmware").mkdir(parents=True)
    monkeypatch.setattr(qemu_descriptors, "DIRECTORIES", (str(tmp_path / "etc"), str(tmp_path / "usr")))
    for path, text in (("usr/firmware/30-a.json", '{"a": 1}'), ("usr/firmware/20-b.json", '{"b": 1}'), ("usr/firmware/40-c.json", '{"c": 1}'),
                       ("etc/firmware/20-b.json", '{"b": 2}'), ("etc/firmware/40-c.json", ""), ("usr/firmware/50-d.json", "[]"),
                       ("usr/firmware/README", "{}")):  # fmt: skip
        (tmp_path / path).write_text(text)
    assert qemu_descriptors.read_descriptors("firmware") == [{"b": 2}, {"a": 1}]
    assert qemu_descriptors.read_descriptors("nothing") == []


def test_a_missing_virtiofsd_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_descriptors, "read_descriptors", lambda kind: [{"type": "fs", "binary": "/gone"}, {"type": "gpu", "binary": "/bin/sh"}])
    with pytest.raises(NodeError, match="virtiofsd is not installed"):
        virtiofs.find_program()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('"type": "fs"', ["--fd=5", "-o", "source=/a\\,b,sandbox=chroot,log_level=err", "--rlimit-nofile=0"]),
        ('"features": ["separate-options"]', ["--fd=5", "--shared-dir", "/a,b", "--sandbox", "none", "--log-level", "error"]),
    ],
)
def test_both_virtiofsds_are_spoken_to(tmp_path: Path, said: str, words: list[str]) -> None:
    program = tmp_path / "virtiofsd"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    assert virtiofs.plan_argv(str(program), "/a,b", 5) == [str(program), *words]


RACE = """
import sys
sys.path.insert(0, sys.argv[1])
from pcocc_runtime.vm import drive_locks
from pcocc_runtime.errors import NodeError
sys.stdin.readline()
try:
    drive_locks.lock_drive(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    print("mine", flush=True)
except NodeError as error:
    print(error, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(("mmp", "jobs", "winners"), [("yes", 1, 1), ("yes", 8, 1), ("cluster", 1, 8), ("cluster", 8, 1)])
def test_of_many_at_once_one_job_has_a_drive(tmp_path: Path, mmp: str, jobs: int, winners: int) -> None:
    drive = tmp_path / "drive"
    drive.write_bytes(b"")
    program = [sys.executable, "-IS", "-c", RACE, str(ROOT), str(drive), mmp]
    pipe = subprocess.PIPE
    racers = [subprocess.Popen([*program, str(number % jobs)], stdin=pipe, stdout=pipe, text=True) for number in range(8)]
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.stdout.readline() for racer in racers if racer.stdout]
    for racer in racers:
        racer.communicate("end\n", timeout=limit(20))
    assert said.count("mine\n") == winners
    assert all("is in use by a VM of " in line for line in said if line != "mine\n")
    fd = drive_locks.lock_drive(str(drive), "yes", 99)
    assert fd is not None
    os.close(fd)


def test_the_last_job_id_has_a_byte_of_its_own(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    drive.write_bytes(b"")
    for job in (0, 0x03FFFFFF):
        fd = drive_locks.lock_drive(str(drive), "cluster", job)
        with pytest.raises(NodeError, match=f"of job {job}$"):
            drive_locks.lock_drive(str(drive), "yes", 5)
        assert fd is not None
        os.close(fd)


def test_memory_is_no_more_than_the_nodes() -> None:
    assert 0 < host_memory.read_memory_limit() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


VERDICTS = {
    "wrong": "Error:\\nCloud config schema errors: packages: 5 is not of type 'array'",
    "broken": "Traceback (most recent call last):\\nModuleNotFoundError: No module named 'requests'",
}


def install_cloud_init(directory: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int) -> Path:
    """Put a program of that name on PATH that says what the real one was seen to say (22.4), and keeps what it was given."""
    (directory / "bin").mkdir()
    program = directory / "bin/cloud-init"
    check = f'[ "$1 $2" = "schema --config-file" ] || exit 9\ncp "$3" {directory}/given'
    program.write_text(f'#!/bin/sh\n{check}\nprintf "{said}\\n" >&2\nexit {status}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}/bin:{os.environ['PATH']}")
    return directory / "given"


def test_user_data_that_cloud_init_refuses_is_refused(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = install_cloud_init(tmp_path, monkeypatch, VERDICTS["wrong"], 1)
    (tmp_path / "ud").write_text("#cloud-config\npackages: 5\n")
    assert "packages: 5 is not of type 'array'" in refused(ask(user_data="ud"))
    assert given.read_text() == "#cloud-config\npackages: 5\n"
    user_template(tmp_path, "mine:\n  inherits: tiny\n  user-data: {packages: 5}\n")
    assert "templates.yaml:3: mine.user-data: is not a valid cloud-config: packages: 5" in refused(ask("mine"))
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert frozen(ask(user_data="script")).groups[0].user_data == "#!/bin/sh\n"


def test_a_text_is_asked_about_once(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_cloud_init(tmp_path, monkeypatch, f'.$(echo >>{tmp_path}/asked)', 0)
    user_template(tmp_path, "mine: {inherits: tiny, user-data: {packages: [a]}, instance-id: 'i-%{vm_rank}'}\n")
    assert len(frozen(ask("mine:20")).groups) == 20
    assert (tmp_path / "asked").read_text() == "\n"


def test_only_the_first_texts_of_many_are_shown_to_cloud_init(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_cloud_init(tmp_path, monkeypatch, f'.$(echo >>{tmp_path}/asked)', 0)
    user_template(tmp_path, f"mine: {{inherits: tiny, user-data: '{tmp_path}/%{{vm_rank}}'}}\n")
    for rank in range(20):
        (tmp_path / str(rank)).write_text(f"#cloud-config\npackages: [v{rank}]\n")
    assert len(frozen(ask("tiny:2,mine:18")).groups) == 19
    assert (tmp_path / "asked").read_text() == 4 * "\n"
    (tmp_path / "19").write_text("#cloud-config\n[\n")
    assert f"user-data file {tmp_path}/19 is not a valid cloud-config" in refused(ask("tiny:2,mine:18"))


def test_a_cloud_init_that_does_not_answer_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_init, "CHECK_SECONDS", 0.1)
    program = install_cloud_init(tmp_path, monkeypatch, VERDICTS["wrong"], 1).parent / "bin/cloud-init"
    verdict = program.read_text()
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    assert cloud_init.find_schema_error("#cloud-config\npackages: 7\n") is None
    program.write_text(verdict)
    monkeypatch.setattr(cloud_init, "CHECK_SECONDS", 60)
    assert cloud_init.find_schema_error("#cloud-config\npackages: 8\n") is None
    assert not (tmp_path / "given").exists()


def test_a_node_that_does_not_know_the_user_is_named() -> None:
    with pytest.raises(NodeError, match=r"^this node knows no user with uid 4000000000$") as caught:
        accounts.read_account(4000000000)
    assert caught.value.hint and "getent passwd 4000000000" in caught.value.hint
    assert accounts.read_account(0).pw_name == "root"


@pytest.mark.parametrize(("said", "status"), [(VERDICTS["broken"], 1), (VERDICTS["wrong"], 0), ("", 1)])
def test_only_a_verdict_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int) -> None:
    install_cloud_init(tmp_path, monkeypatch, said, status)
    assert cloud_init.find_schema_error("#cloud-config\n") is None


def test_a_check_that_cannot_be_made_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/self")  # as a full /tmp: nothing can be written
    assert cloud_init.find_schema_error("#cloud-config\npackages: 6\n") is None

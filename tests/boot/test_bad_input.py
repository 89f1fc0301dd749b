"""What users mistype: one sentence with a hint, no job, no drained node, nothing left."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.boot.box import HOME, STATE, Box, Done
from tests.boot.cluster import Cluster


def ensure_refused(done: Done, *words: str) -> None:
    """Check that a command said one sentence with these words and a hint, and failed."""
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if "pcocc: error:" in line]
    assert len(told) == 1, done.stderr
    assert "hint:" in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def run_refused(box: Box, argv: str | Sequence[str], *words: str, **more: object) -> None:
    """Check that a command is refused before a job is made of it."""
    before = box.jobs("all")
    ensure_refused(box.run(argv, timeout=30, **more), *words)  # type: ignore[arg-type]
    assert box.jobs("all") == before


TEMPLATES = [
    ("nonesuch", "nonesuch"),
    ("tiny:0", "0"),
    ("tiny:-1", "-1"),
    ("tiny:1000000000", "1000000000"),
    ("tiny:99999999999999999999999", "99999999999999999999999"),
    ("tiny:two", "two"),
    ("tiny:1.5", "1.5"),
    ("tiny:", "tiny"),
    (":2", ":2"),
    ("", "template"),
    ("tiny,,tiny", "tiny"),
    ("tiny:65", "64"),
    ("tiny:40,tiny:40", "64"),
    ("tiny:2;id", "id"),
    ("../tiny", "tiny"),
    ("$(id)", "id"),
]


@pytest.mark.parametrize("tool", ["srun", "sbatch", "salloc"])
@pytest.mark.parametrize(("template", "word"), TEMPLATES[:7])
def test_a_wrong_template_is_refused_by_every_command(box: Box, tool: str, template: str, word: str) -> None:
    command = ["--wrap=true"] if tool == "sbatch" else ["true"]
    run_refused(box, [tool, f"--pcocc-template={template}", *command], word)


@pytest.mark.parametrize(("template", "word"), TEMPLATES[7:])
def test_a_wrong_template_is_refused(box: Box, template: str, word: str) -> None:
    run_refused(box, ["srun", f"--pcocc-template={template}", "true"], word)


def test_a_wrong_template_in_the_environment_is_refused(box: Box) -> None:
    run_refused(box, "srun true", "nonesuch", env={"PCOCC_TEMPLATE": "nonesuch"})


@pytest.mark.parametrize("tool", ["srun", "sbatch", "salloc"])
def test_a_task_count_against_the_vm_count_is_refused_with_both(box: Box, tool: str) -> None:
    command = ["--wrap=true"] if tool == "sbatch" else ["true"]
    before = box.jobs("all")
    done = box.run([tool, "-n2", "--pcocc-template=tiny:3", *command])
    assert done.returncode != 0 and done.stdout == ""
    assert "2" in done.stderr and "3" in done.stderr and "pcocc" in done.stderr, done.stderr
    assert box.jobs("all") == before


IMAGES = STATE / "images"


@pytest.fixture(scope="module")
def files(box: Box) -> Iterator[Path]:
    """A directory of alice's with files that are no images."""
    directory = HOME / "boottest-files"
    directory.mkdir()
    (directory / "text.qcow2").write_text("this is no image\n")
    (directory / "empty.qcow2").write_bytes(b"")
    (directory / "secret").write_text("root's own\n")
    (directory / "secret").chmod(0o600)
    (directory / "dir.qcow2").mkdir()
    yield directory
    (directory / "dir.qcow2").rmdir()
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


@pytest.mark.parametrize("name", ["missing.qcow2", "text.qcow2", "empty.qcow2", "secret", "dir.qcow2"])
def test_an_image_that_is_none_is_refused(box: Box, files: Path, name: str) -> None:
    run_refused(box, f"srun --pcocc-template=tiny --pcocc-image={files}/{name} true", name)


def test_an_image_for_a_template_that_is_not_used_is_refused(box: Box) -> None:
    run_refused(box, f"srun --pcocc-template=tiny --pcocc-image=debian={IMAGES}/tiny.qcow2 true", "debian")


def test_an_image_without_a_template_is_refused(box: Box) -> None:
    run_refused(box, f"srun --pcocc-image={IMAGES}/tiny.qcow2 true", "--pcocc-template")


@pytest.mark.parametrize("name", ["missing", "secret", "dir.qcow2"])
def test_user_data_that_cannot_be_read_is_refused(box: Box, files: Path, name: str) -> None:
    run_refused(box, f"srun --pcocc-template=tiny --pcocc-user-data={files}/{name} true", name)


def test_user_data_that_shuts_the_user_out_is_refused_and_what_is_odd_is_noted(box: Box, files: Path) -> None:
    (files / "ud").write_text("#cloud-config\nuser: {name: alice, ssh_authorized_keys: [mine]}\n")
    run_refused(
        box, f"srun --pcocc-template=tiny --pcocc-user-data={files}/ud true", "ud:2: user: gives 'alice'",
        "--pcocc-user-data-force",
    )
    done = box.run(f"sbatch --hold --wrap=true --pcocc-template=tiny --pcocc-user-data={files}/ud --pcocc-user-data-force")
    assert (
        done.returncode == 0 and "pcocc: note: user-data file" in done.stderr and "pcocc: error" not in done.stderr
    ), done.stderr
    box.run(f"scancel {done.stdout.split()[-1]}")
    # a key that cloud-init knows: of others, newer releases have a note of their own
    (files / "ud").write_text("#cloud-config\napt_pipelining: 1\napt_pipelining: 010\n")
    done = box.run(f"sbatch --hold --wrap=true --pcocc-template=tiny --pcocc-user-data={files}/ud")
    box.run(f"scancel {done.stdout.split()[-1]}")
    assert done.stderr.count("pcocc: note: ") == 2 and "apt_pipelining is set twice" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "mount",
    ["", "data", "data=", "=/tmp", "data=relative", "data=/nonesuch", "data=/tmp,wrong", "a/b=/tmp", "x=/tmp,type=nfs"],
)
def test_a_wrong_mount_is_refused(box: Box, mount: str) -> None:
    run_refused(box, ["srun", "--pcocc-template=tiny", f"--pcocc-mount={mount}", "true"])


def test_more_mounts_than_can_be_kept_are_refused(box: Box) -> None:
    words = [f"--pcocc-mount=t{number}=/tmp" for number in range(65)]
    done = box.run(["srun", "--pcocc-template=tiny", *words, "true"])
    assert done.returncode == 1 and "--pcocc-mount may be given 64 times each at most" in done.stderr, done.stderr


def test_a_vm_step_in_a_job_without_vms_is_refused(box: Box) -> None:
    done = box.run("salloc --quiet srun --pcocc-vm hostname")
    ensure_refused(done, "--pcocc-template")


@pytest.mark.parametrize("tool", ["srun", "sbatch"])
def test_a_vm_step_outside_of_a_job_is_refused(box: Box, tool: str) -> None:
    run_refused(box, [tool, "--pcocc-vm", "--wrap=true" if tool == "sbatch" else "true"], "--pcocc-template")


@pytest.mark.parametrize("vms", ["vm[9]", "vm4", "vm[0-4]", "n1", "vm", "vm[", "vm[0-", "vm-1", "0", "vm[3-1]", "vm00"])
def test_a_vm_that_the_job_does_not_have_is_refused(cluster: Cluster, vms: str) -> None:
    before = set(cluster.steps())
    ensure_refused(cluster.srun([f"--pcocc-vm={vms}", "true"]), vms)
    assert set(cluster.steps()) == before


def test_a_template_inside_a_job_is_refused(cluster: Cluster) -> None:
    ensure_refused(cluster.srun("--pcocc-template=tiny true"), "--pcocc-vm")


def test_an_unknown_vm_operation_is_refused(cluster: Cluster) -> None:
    done = cluster.srun("--pcocc-vm=vm0 @nonesuch")
    ensure_refused(done, "@nonesuch", "@reset, @save")


def test_a_vm_of_the_batch_script_that_does_not_exist_is_refused(box: Box) -> None:
    run_refused(box, ["sbatch", "--pcocc-template=tiny:2", "--pcocc-vm=vm9", "--wrap=true"], "vm9")


@pytest.mark.parametrize("size", ["--mem-per-cpu=100M"])
def test_a_job_that_is_too_small_for_a_vm_is_refused(box: Box, size: str) -> None:
    ensure_refused(box.run(["srun", "--pcocc-template=tiny", size, "true"]), "100 MiB")


def appended(box: Box, text: str) -> AbstractContextManager[None]:
    """Add lines to the site's templates.yaml for a while."""
    do = f"cp -p /etc/pcocc/templates.yaml /run/templates.yaml; printf '{text}' >>/etc/pcocc/templates.yaml"
    return box.changed(do, "cp -p /run/templates.yaml /etc/pcocc/templates.yaml")


def test_a_mistake_in_the_sites_files_is_told_with_file_and_line(box: Box) -> None:
    with appended(box, "broken:\\n  image: [\\n"):
        run_refused(box, "srun --pcocc-template=tiny true", "/etc/pcocc/templates.yaml:", "YAML")


def test_an_unknown_key_in_the_sites_files_is_told(box: Box) -> None:
    with appended(box, "odd:\\n  image: /x.qcow2\\n  cpuz: 3\\n"):
        run_refused(box, "srun --pcocc-template=odd true", "/etc/pcocc/templates.yaml", "cpuz")


def test_bad_input_drains_no_node(box: Box) -> None:
    assert "drain" not in box.node_states() and "down" not in box.node_states()

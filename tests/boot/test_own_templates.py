"""Templates of a user's own in real jobs: frozen at submission, and limited by the site."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.box import Box
from tests.waiting import wait_for


def write_templates(home: Path, text: str) -> None:
    """Write the user's templates."""
    (home / ".pcocc").mkdir(exist_ok=True)
    (home / ".pcocc/templates.yaml").write_text(text)


def test_a_template_edited_while_the_job_waits_changes_nothing(box: Box, home: Path) -> None:
    write_templates(home, "mine: {inherits: tiny, custom-args: [-smbios, 'type=1,product=before']}\n")
    command = "srun --pcocc-vm cat /sys/class/dmi/id/product_name"
    options = ["--parsable", "--hold", "--pcocc-template=mine", f"--output={home}/out", f"--wrap={command}"]
    job = int(box.out(["sbatch", *options], env={"HOME": str(home)}, cwd=str(home)))
    write_templates(home, "mine: {inherits: tiny, image: /gone, custom-args: [-smbios, 'type=1,product=after']}\n")
    box.run(["scontrol", "release", str(job)], status=0)
    wait_for(lambda: job not in box.jobs(), f"the end of job {job}", 120)
    said = [line for line in (home / "out").read_text().splitlines() if not line.startswith("pcocc: ")]
    assert said == ["before"]


@pytest.mark.parametrize("verb", ["list", "show mine", "check"])
def test_a_users_templates_are_seen_beside_the_sites(box: Box, home: Path, verb: str) -> None:
    write_templates(home, "mine: {inherits: tiny, description: of my own}\n")
    done = box.run(f"pcocc template {verb}", env={"HOME": str(home)}, status=0)
    assert {"list": "mine", "show mine": "of my own", "check": "no error"}[verb] in done.stdout and done.stderr == ""


def test_a_directory_of_configuration_can_be_named(box: Box, home: Path) -> None:
    (home / "conf").mkdir()
    (home / "conf/templates.yaml").write_text("other: {inherits: nowhere}\n")
    done = box.run("pcocc template check", env={"PCOCC_USER_CONF_DIR": str(home / "conf")}, status=1)
    assert f"{home}/conf/templates.yaml:1: other.inherits: there is no template 'nowhere' to inherit from" in done.stderr

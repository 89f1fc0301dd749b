"""What sacct says about a job's VMs, as `pcocc usage` shows it."""

import os
from pathlib import Path

import pytest

from pcocc_runtime.cli.main import main
from pcocc_runtime.slurm.text import parse_usage, parse_used_memory, parse_used_time

# as sacct of Slurm 22.05 writes them with --parsable2: a requeued job, whose first run was cut off; and other steps
RECORDED = """12||00:10:00|00:20:03|||||||CANCELLED by 1000|pcocc-vms
12.batch|1|00:10:00|00:00:01.004|00:00:01|00:00:01|0|4000K|4000K|0|COMPLETED|batch
12.0|4|00:09:58|20:02.500|00:05:00|00:01:01|2|312345K|1.50G|1|CANCELLED by 1000|pcocc-vms
12.1|4|00:00:02|00:00.100|00:00:00|00:00:00|0|3M|4M|3|COMPLETED|hostname
12.2|4|00:00:02|00:00.100|00:00:00|00:00:00|0|3M|4M|3|COMPLETED|x
12.3|99|00:00:02|00:00.100|00:00:00|00:00:00|0|3M|4M|3|COMPLETED|y|pcocc-vms
12_7.0|2|1-00:00:01|1-02:03:04|||||||RUNNING|pcocc-vms
"""
SACCT = """#!/bin/sh
echo "$*" >{here}/typed
cat {here}/says
exit $(cat {here}/status)
"""


@pytest.fixture
def sacct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what a stand-in for sacct says, and how it ends."""
    (tmp_path / "sacct").write_text(SACCT.format(here=tmp_path))
    (tmp_path / "sacct").chmod(0o755)
    (tmp_path / "says").write_text(RECORDED)
    (tmp_path / "status").write_text("0")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_steps_that_were_vms_are_read() -> None:
    first, running = parse_usage(RECORDED)
    assert (first.job, first.vms, first.elapsed, first.cpu) == ("12", 4, 598, 1202)
    assert (first.mean_cpu, first.least_cpu, first.state) == (300, (61, 2), "CANCELLED by 1000")
    assert (first.mean_memory, first.most_memory) == (312345 << 10, (3 << 29, 1))
    assert (running.job, running.cpu, running.mean_cpu, running.least_cpu) == ("12_7", 93784, None, None)
    assert (running.mean_memory, running.most_memory) == (None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:00:01", 1), ("01:02.900", 62), ("2-03:04:05", 183845), ("", None), ("UNLIMITED", None), ("-1:00", None)],
)
def test_times(text: str, seconds: int | None) -> None:
    assert parse_used_time(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("17", 17), ("1.50M", 3 << 19), ("4K", 4096), ("", None), ("16?", None)])
def test_sizes(text: str, size: int | None) -> None:
    assert parse_used_memory(text) == size


def test_a_line_for_each_boot(sacct: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "12"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(rows[1]) == "12 4 0:09:58 0:20:02 0:05:00 0:01:01 vm2 305M 1536M vm1 CANCELLED by 1000"
    assert rows[2] == ["12_7", "2", "24:00:01", "26:03:04", "-", "-", "-", "-", "RUNNING"]
    assert "--duplicates --jobs=12 " in (sacct / "typed").read_text()


@pytest.mark.parametrize(
    ("job", "says", "status", "told"),
    [
        ("12", "Slurm accounting storage is disabled", 1, "this site's Slurm keeps no accounting"),
        ("12", "", 0, "Slurm's accounting has no VMs of job 12"),
        ("x;y", "", 0, "'x;y' is not the number of a job"),
        ("12", "sacct: error: Connection refused", 1, "Connection refused"),
    ],
)
def test_where_nothing_is_recorded_a_sentence_says_why(
    sacct: Path, capsys: pytest.CaptureFixture[str], job: str, says: str, status: int, told: str
) -> None:
    (sacct / "says").write_text("")
    script = SACCT.format(here=sacct).replace("cat ", f"echo '{says}' >&2; cat ", 1) if says else SACCT.format(here=sacct)
    (sacct / "sacct").write_text(script)
    (sacct / "status").write_text(str(status))
    assert main(["usage", job]) == 1
    said = capsys.readouterr().err
    assert told in said and said.count("pcocc: error:") == 1 and "hint:" in said

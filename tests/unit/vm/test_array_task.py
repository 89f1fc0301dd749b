"""`%a` in typed paths: the number of an array's task, filled in when that boots."""

from pathlib import Path

import pytest

from pcocc_runtime.documents.cluster import Cluster, Group, Mount, decode_cluster, encode_cluster
from pcocc_runtime.errors import RequestError
from pcocc_runtime.slurm.text import JobFacts
from pcocc_runtime.vm import starter
from pcocc_runtime.vm.user_data import read_task_user_data


def read(directory: Path, group: Group, task: int | None) -> Group:
    [found] = starter.read_filled_cluster(encode_cluster(Cluster((group,))), JobFacts(7, 1, 1, 0, 0, task)).groups
    return decode_cluster(encode_cluster(Cluster((found,)))).groups[0]


def test_paths_have_the_number_of_the_task(tmp_path: Path) -> None:
    (tmp_path / "of-%a").mkdir()
    (tmp_path / "user-3").write_text("#cloud-config\n")
    mounts = (Mount("a", f"{tmp_path}/in-%a/x%a"), Mount("b", f"{tmp_path}/of-%a"), Mount("c", "/usr"))
    group = Group("t", 2, mounts=mounts, task_user_data=f"{tmp_path}/user-%a")
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


@pytest.mark.parametrize(("data", "said"), [(b"a" * 65537, "is larger than 64 KiB"), (b"a\xff", "is not UTF-8 text .byte 1")])
def test_what_is_no_user_data_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(RequestError, match=said):
        read_task_user_data(str(tmp_path / "file"))

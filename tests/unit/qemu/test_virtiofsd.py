"""Both kinds of virtiofsd are told the same, each with its own options."""

import pytest

from pcocc_runtime.qemu.virtiofsd import plan_virtiofsd_argv


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('"type": "fs"', ["--fd=5", "-o", "source=/a\\,b\\\\,sandbox=chroot,log_level=err", "--rlimit-nofile=0"]),
        ('"features": ["separate-options"]', ["--fd=5", "--shared-dir", "/a,b\\", "--sandbox", "none", "--log-level", "error"]),
    ],
)
def test_a_directory_with_a_comma_is_one_directory(said: str, words: list[str]) -> None:
    assert plan_virtiofsd_argv("/v", "/a,b\\", 5, said) == ["/v", *words]

"""Trees of files that a user plants in his current directory."""

import os
from pathlib import Path


def nest(depth: int) -> None:
    for _level in range(depth):
        os.mkdir("d")
        os.chdir("d")
    Path("file").touch()


def shut() -> None:
    """Make a tree that nobody may enter, write to or move."""
    nest(3)
    while os.getcwd().endswith("d"):
        here = os.getcwd()
        os.chdir("..")
        os.chmod(here, 0)
    os.chmod(".", 0)


def numbers() -> None:
    """Occupy the names that directories are given while their parents are deleted."""
    for number in range(40):
        os.makedirs(f"{number}/d/{number}")
    for number in range(40, 60):
        Path(str(number)).touch()
        os.makedirs(f"deep/{number}/d")


def kinds() -> None:
    """Make one of each kind of file, and links that lead elsewhere."""
    os.mkfifo("fifo")
    os.symlink("/etc", "link")
    os.makedirs("directory/below")
    os.symlink("/etc", "directory/link")
    os.symlink("..", "directory/up")
    Path("directory/newline\n\udcff").touch()

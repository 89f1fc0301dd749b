"""The options of a save, which `pcocc save` and the task that it starts share."""

from __future__ import annotations

import argparse

from pcocc_runtime import errors


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a save."""
    parser.add_argument(
        "-d", "--dest", metavar="NAME",
        help="make a new image, as [REPO:]NAME; without REPO in the first repository"
    )
    parser.add_argument(
        "--drive", metavar="I", type=_number, default=0,
        help="the disk to save; 0, the default, is the boot disk, persistent drives follow"
    )
    parser.add_argument(
        "--full", action="store_true", help="store the whole disk, as an image that needs no other"
    )
    parser.add_argument(
        "--clean", action="store_true",
        help="leave out what identifies the VM: ssh keys of the host, machine-id, cloud-init's state"
    )
    parser.add_argument(
        "--safe", action="store_true", help="fail unless the guest's agent freezes its file systems"
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a drive")
    return int(text)


def ensure_boot_disk(clean: bool, drive: int) -> None:
    """Raise RequestError for a clean save of another disk than the guest's own."""
    if clean and drive:
        raise errors.RequestError(
            "--clean is about the boot disk, not about a persistent drive", "leave out --clean, or --drive"
        )


def one_name(name: str) -> errors.RequestError:
    """Return the refusal to save several VMs under one name."""
    return errors.RequestError(
        f"several VMs cannot be saved as one image {name[:80]!r}", "save one VM, or leave out -d"
    )

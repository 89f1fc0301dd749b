"""What a saver and the VM's keeper call the same things."""

from __future__ import annotations

SAVE_SOCKET, EXPORT_SOCKET = "save", "save.nbd"
SAVE_OVERLAY, MERGE_JOB = "save-overlay", "save-merge"
SAVE_FILTER, SAVE_VIEW = "save-filter", "save-view"  # between a drive and its guest, and what the drive was (drivesave.py)
MERGE_AGAIN = 10.0  # seconds until what failed, such as a merge on a full disk, is tried anew

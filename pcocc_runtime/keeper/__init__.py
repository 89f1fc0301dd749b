"""The resident process beside QEMU."""

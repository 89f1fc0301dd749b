"""A VM from the boot step's task to QEMU's exec."""

"""A task in a VM, and the table of operations on VMs."""

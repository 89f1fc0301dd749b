"""The host: files, processes, accounts; knows nothing of VMs."""

"""A Slurm cluster in namespaces of this machine, for demonstrations and tests."""

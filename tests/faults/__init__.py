"""The fault campaign: what breaks in a Slurm cluster, done to a job with VMs on the box, and looked at afterwards
(`make faults`)."""

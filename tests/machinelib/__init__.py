"""A whole compute node in a virtual machine: systemd, cgroup v2, Slurm, NUMA, an IOMMU, and KVM for the VMs in it."""

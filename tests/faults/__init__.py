"""The fault campaign (`make faults`): what breaks in a cluster, done to a job with VMs on the box, and looked at afterwards."""

"""A running VM's disk as a revision of an image."""

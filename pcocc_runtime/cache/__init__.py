"""A node's own copies of image layers."""

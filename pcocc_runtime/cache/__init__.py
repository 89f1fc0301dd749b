"""A node's own copies of layers."""

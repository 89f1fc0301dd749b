"""Slurm's commands, their text, and the steps we start."""

"""Packages of each release of Debian, installed in a machine that has nothing but that release and its Slurm."""

"""From what was typed to the frozen cluster: runs in srun, sbatch and salloc."""

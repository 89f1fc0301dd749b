"""`pcocc ps` and `pcocc network`: asked on nodes, drawn at home."""

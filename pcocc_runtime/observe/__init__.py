"""`pcocc ps` and `pcocc network`: nodes are asked, and their answers are shown where the command was typed."""

"""`pcocc node check`: what a node needs, read in one place and judged in another."""

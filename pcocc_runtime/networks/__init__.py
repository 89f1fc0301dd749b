"""From networks.yaml to nft: one job's networks on one node."""

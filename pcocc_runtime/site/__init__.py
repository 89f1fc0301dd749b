"""What a site has decided: pcocc.yaml, resource sets, policy, admission."""

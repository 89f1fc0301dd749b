"""What a guest is told: seed, network configuration, shell text, ssh's words, its agent."""

"""All that runs as root."""

"""The pcocc command: options in, text out."""

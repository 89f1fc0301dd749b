"""How a YAML file becomes checked values; no setting of pcocc's is named here."""

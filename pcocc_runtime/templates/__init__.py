"""templates.yaml: settings, inheritance, %{words}."""

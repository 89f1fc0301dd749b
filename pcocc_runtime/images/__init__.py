"""Repositories, layers, formats, import and export."""

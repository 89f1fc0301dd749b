"""Adapters: each the only importer of its dangerous library; they never call a verb."""

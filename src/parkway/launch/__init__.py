"""Wiring and supervision: which processes there are, and who keeps them running."""

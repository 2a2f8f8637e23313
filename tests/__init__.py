"""Tests, folder by folder as in `src/parkway`. Servers that they start are in `servers.py`."""

"""State that outlives a process: the home directory, the database, and word of what changed in it."""

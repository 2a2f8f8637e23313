"""Named checks on what goes in and what comes out: each observes, redacts or blocks."""

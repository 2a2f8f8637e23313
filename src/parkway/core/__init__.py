"""The vocabulary of Parkway: request and response types, errors, ids, configuration, tasks."""

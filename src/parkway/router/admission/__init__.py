"""Whose turn it is: fair queues in front of each model, and no more behind its gate than it can work on."""

"""Knowledge: the user's own documents, from the file to the passages that answer a question."""

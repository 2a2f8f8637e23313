"""What is made of an answer beside relaying it: its text and usage, and the conversation that it belongs to."""

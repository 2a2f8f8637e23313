"""What came of every request: the log, the metrics, the scores that people gave, and the figures made from them."""

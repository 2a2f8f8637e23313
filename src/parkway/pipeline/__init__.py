"""The path of one request: identify, admit, remember, route, infer, aggregate, record."""

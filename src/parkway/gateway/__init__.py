"""The HTTP surface: routes, authentication, streaming to the client, OpenAPI."""

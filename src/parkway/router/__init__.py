"""From a model's name to an answering endpoint: registry, balancing, health checks, retries."""

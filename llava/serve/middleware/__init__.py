"""ASGI middleware that the servers share: limits, request ids, keys, logging."""

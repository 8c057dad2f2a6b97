"""Open WebUI and the proxy in front of it."""

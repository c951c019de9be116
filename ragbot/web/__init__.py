"""The web chat and the HTTP API: what only `ragbot serve` loads."""

"""What maintainers run: measurements, fits, pictures. Nothing here is installed."""

"""A visitor's own documents: taken in, read apart, kept for a while, forgotten."""

"""Question sets, and what they say about ragbot. Nothing that answers questions imports this."""

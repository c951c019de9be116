"""What answers questions in the bench, each in a process of its own, all by one protocol."""

"""The page: its layout, what it asks of the server, and every word and piece of HTML it shows."""

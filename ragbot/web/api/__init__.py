"""The API: OpenAI's endpoints and our own, what they take and give, and how they fail."""

"""What is asked of OpenRouter about keys: the requests, and what the answers mean."""

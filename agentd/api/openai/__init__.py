"""OpenAI's API: its endpoints, its errors and its streams, over the models and the agent of this daemon."""

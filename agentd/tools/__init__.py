"""What the agent can do, and the gate it passes."""

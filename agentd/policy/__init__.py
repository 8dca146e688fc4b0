"""What is allowed, how risky it is, and why."""

"""How the agent gives itself a new tool: specified, tested, proven, signed, and kept by evidence."""

"""The two loops: from a goal to a report."""

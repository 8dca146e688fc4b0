"""The queue of tasks, the journal of each, and the threads that run them."""

"""llama.cpp in a process of its own: one GGUF model, many sequences."""

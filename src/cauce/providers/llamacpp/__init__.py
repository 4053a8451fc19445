"""Models in GGUF files, run by llama.cpp in a worker process of their own."""

"""GGUF files, which llama.cpp and everything built on it reads."""

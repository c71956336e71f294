"""How good a child is: perplexity, divergence from its teacher, top-k agreement, size and speed."""

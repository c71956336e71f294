"""What a candidate uses: parameters, weight memory, cache memory."""

"""What the fault tests share: a warm process that forks one victim a fault, and the seam through which faults are injected."""

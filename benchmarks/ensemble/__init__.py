"""Do the intervals of an ensemble hold what is true? Simulations whose truth is known: bias, variance and coverage."""

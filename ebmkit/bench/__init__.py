"""`ebmkit bench`: how fast a recipe trains and samples, side by side with the plain reference of `benchmarks/`."""

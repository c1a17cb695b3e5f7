"""Annealed importance sampling (Neal 2001): the normalising constant of an energy, and what follows from it."""

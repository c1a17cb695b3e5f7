"""Metrics of samples against real images: Fréchet distances, Inception score, KID, precision and recall."""

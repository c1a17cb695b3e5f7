"""The fast path: what makes the same computation quicker on this device, each part by itself, and what chooses them."""

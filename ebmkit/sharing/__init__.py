"""What is needed to give a model to others: a folder with a card, and the Hugging Face hub."""

MODEL, RECIPE, CARD, SAMPLES = "model.safetensors", "recipe.toml", "README.md", "samples.png"
FILES = (MODEL, RECIPE, CARD, SAMPLES)
"""All that such a folder holds."""

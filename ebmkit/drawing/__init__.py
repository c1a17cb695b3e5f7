"""Pictures of models and runs, one module each: what is computed stands apart from how it is drawn."""

"""Several processes for one job: their places, what they tell each other, and who watches over them."""

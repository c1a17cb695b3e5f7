"""3x3 convolutions on a CPU in float32 with a quarter of the multiplications."""

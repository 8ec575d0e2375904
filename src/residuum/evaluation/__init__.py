"""What a model is worth: metrics as counts, and one way to evaluate anything that gives logits."""

"""Why a deep network does not train: what goes through it, forward and backward, and a verdict in words."""

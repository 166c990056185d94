"""Networks: operations, layers and models."""

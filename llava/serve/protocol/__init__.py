"""What clients, controller and workers exchange: request bodies, answer frames, failures, and HTTP clients for them."""

"""How the controller chooses a worker and forwards a request to it."""

"""Serving: chat in a terminal, controller, model workers, OpenAI-style API and web demo."""

"""Serves models on a Ray cluster: the OpenAI-style API, replicas of workers, and a router that keeps promises."""

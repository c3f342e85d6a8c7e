"""OpenAI-style API: its schemas, translation to and from worker requests, and safe fetching of images."""

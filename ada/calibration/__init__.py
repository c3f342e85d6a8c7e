"""Milliseconds on this device: measure, fit, store, predict, correct."""

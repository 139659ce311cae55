"""Helpers for output: numbers as text, safe terminal text, progress displays, HTML pages."""

"""Walls around names that other libraries keep private: one module a library, each name checked when it is imported."""

"""Adapters on disk or on the hub: their files read, and loaded onto their base."""

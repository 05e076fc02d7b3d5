"""What a project's own configuration names: its targets, how each is judged, and all of them inspected."""

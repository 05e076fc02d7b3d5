"""Forward sources, read: the lines they are at, what they wait for, and which weights they take."""

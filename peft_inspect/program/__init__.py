"""The user's own, unchanged program as the driver of steps: launched as Python would, watched from inside, stopped or left alone.

Nothing here imports torch before the program itself does: what it sets up first has to have its effect.
"""

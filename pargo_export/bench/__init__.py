"""Measure a bundle: times with their boundaries, memory, energy, load; gate first, numbers after."""

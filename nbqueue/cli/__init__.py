"""The commands `nbqueue` and `nbqueue-worker`."""

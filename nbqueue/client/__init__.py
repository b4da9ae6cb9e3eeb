"""What runs in the user's process: the app, its I/O thread, and the handles."""

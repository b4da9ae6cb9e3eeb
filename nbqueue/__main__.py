"""``python -m nbqueue`` is the command `nbqueue`."""

from nbqueue.cli.main import main

if __name__ == "__main__":
    main()

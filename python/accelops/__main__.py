"""`python -m accelops` is the command `accelops`."""

from accelops.cli import main

if __name__ == "__main__":
    main()

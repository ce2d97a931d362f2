"""accelops."""

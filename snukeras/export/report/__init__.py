"""What becomes of an export on hardware, on a page and in the terminal."""

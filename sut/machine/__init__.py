"""What this computer is, and its meters."""

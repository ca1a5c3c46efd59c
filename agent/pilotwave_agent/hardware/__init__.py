"""What the machine is: read from the kernel, never changed."""

"""The short-lived process that adapts a version's last layer to this device alone."""

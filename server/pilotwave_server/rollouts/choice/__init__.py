"""Which variant of a version the devices of a class get, by what a few of them measured."""

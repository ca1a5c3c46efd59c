"""A fleet of virtual devices in one process, over real HTTP: for rehearsals and measurements."""

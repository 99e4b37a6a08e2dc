"""Models on this machine: the hub's cache of them, and a tiny one that we make ourselves where no hub is reached."""

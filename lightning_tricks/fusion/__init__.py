"""Many trials of one shape, trained together as one program on one device."""

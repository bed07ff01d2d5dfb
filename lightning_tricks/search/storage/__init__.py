"""Where studies are stored: files, databases that may be away for a while, and a lock."""

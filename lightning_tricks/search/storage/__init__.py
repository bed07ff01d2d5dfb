"""Where studies are stored: files, databases that are waited for, and a lock."""

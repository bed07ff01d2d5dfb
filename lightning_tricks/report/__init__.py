"""One file to hand around: what a study asked, found and cost."""

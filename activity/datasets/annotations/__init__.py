"""Labels that other tools wrote: a module for each of their formats, and what turns any of them into samples."""

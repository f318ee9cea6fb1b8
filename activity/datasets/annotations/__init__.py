"""Labels of other tools, read and written: a module a format, and what turns any of them into samples."""

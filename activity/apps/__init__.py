"""Programs made of the rest: the web page, the demo, the doctor."""

"""Models of other libraries under our protocol, as an independent check of our own."""

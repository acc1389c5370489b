"""An inspector behind a web address: a service for machines, a page for people."""

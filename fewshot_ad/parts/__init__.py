"""What two methods need: backbones, matching, flows, maps ... Never a whole method."""

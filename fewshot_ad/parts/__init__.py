"""What two methods need: backbones and their features, matching, flows, maps. Never a whole method."""

"""Where predictions meet the ground truth: evaluator, metrics, result rows."""

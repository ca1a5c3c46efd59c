"""What a device computes from its labelled examples, for a plan of its model's publisher."""

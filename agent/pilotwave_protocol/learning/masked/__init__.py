"""Sums of groups of devices without any one's numbers: Bonawitz et al., "Practical Secure
Aggregation for Privacy-Preserving Machine Learning", CCS 2017 (docs/protocol.md, section 15)."""

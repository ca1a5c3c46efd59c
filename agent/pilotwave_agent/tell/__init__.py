"""The ways to tell an application of a new version, each behind one interface (`base.Teller`)."""

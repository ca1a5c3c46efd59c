"""Going on after a restore or a failover: devices may have seen more than this database holds."""

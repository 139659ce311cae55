"""What tests share: worlds, checkpoints, servers on loopback, terminals and browsers."""

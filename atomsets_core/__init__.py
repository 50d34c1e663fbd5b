"""Science and storage of AtomSets screening: no orchestration here, usable on its own."""

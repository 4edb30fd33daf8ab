"""Model packs on disk: known ones, finding and checking them, installing and combining."""

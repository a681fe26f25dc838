//! Who can reach whom, worked out from what was read back.

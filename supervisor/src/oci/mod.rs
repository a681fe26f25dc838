//! Images: pulled from the site, verified, unpacked.
